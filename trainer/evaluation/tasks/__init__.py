"""How each vision task is measured, one file per task: truth, metrics, columns, blind guesses and drawings."""
