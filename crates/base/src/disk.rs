//! (to be written by the owner of the log: the trait behind which files live, the real disk and the simulated one)
