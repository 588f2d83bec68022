"""A use case to begin with: its three files and a test, written from the columns of a CSV file."""
