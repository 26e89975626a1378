"""The audit report: verdict, coverage, evidence and the page."""
