"""The report: what evaluate runs found, as one self-contained page and as a table."""

from cai.report.collect import Question, Result, collect
from cai.report.page import write_report
from cai.report.tables import comparison_table

__all__ = ["Question", "Result", "collect", "comparison_table", "write_report"]
