//! What is shown while a run runs: a few lines that are drawn again on a terminal, plain lines elsewhere.
