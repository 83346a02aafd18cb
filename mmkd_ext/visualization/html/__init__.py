"""The report of a discovery as one self-contained HTML file."""
