//! Before a run: which limit of this machine will stop it, and the command that lifts it.
