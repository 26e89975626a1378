"""Jobs: runners, the encode and convert jobs, and cost estimates."""
