"""Go through a run one communication at a time: `minipar step`."""
