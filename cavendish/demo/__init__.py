"""The demo: every stage on the example configurations, and one page that shows it."""

from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
"""The example configurations, a commented YAML for each verb."""
