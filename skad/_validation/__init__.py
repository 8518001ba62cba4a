"""How what users pass is read, and how they are told of it: labels, numbers, quoted values, warnings."""
