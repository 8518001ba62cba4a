"""Reading what users pass, and telling them about it: labels, numbers, quoted text, warnings."""
