"""What every room uses: small modules that know nothing of images, networks or detectors.

- `files`, `processes`, `forks`, `interrupts`, `memory`, `pickles`: what is asked of Python and of the
  operating system;
- `labels`, `numbers`, `text`: how what users pass is read, and quoted;
- `warn`, `progress`: how users are told.
"""
