"""What is asked of the operating system and of Python: files, processes, forks, signals, memory.

Imports neither torch nor scikit-learn.
"""
