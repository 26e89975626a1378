"""One file per annotator family, all behind `annotate.annotators.protocol`."""
