//! The shared plan cache: statement text with its literals lifted out, to a plan.
