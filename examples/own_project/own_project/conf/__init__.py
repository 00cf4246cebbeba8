"""Configs of this project, found as pkg://own_project.conf."""
