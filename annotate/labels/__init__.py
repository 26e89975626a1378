"""Labels: from model outputs to the labels of a sample, with the checks that decide what is kept."""
