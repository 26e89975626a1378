"""Reports: result tables and pages."""
