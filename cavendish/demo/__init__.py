"""`cavendish demo`: every stage in turn on the configurations under examples/, and the page that shows it."""
