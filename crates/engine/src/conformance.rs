//! (to be written: the tests that every engine must pass)
