"""From patches to scores, maps and thresholds."""
