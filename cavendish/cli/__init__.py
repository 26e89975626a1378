"""The verbs of the command line, by what they are for; each imports its stage only when it runs."""
