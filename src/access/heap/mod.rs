//! `heap` access method.
