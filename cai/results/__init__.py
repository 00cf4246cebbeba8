"""The rows and documents that stages write, and that later stages and the report read."""
