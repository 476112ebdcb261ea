"""What training/evaluate.py measures, one a file: deception, style, detail, colour, artifacts, robustness, saliency."""
