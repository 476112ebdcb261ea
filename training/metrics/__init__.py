"""What training/evaluate.py measures: style, detail and artifacts, one a file."""
