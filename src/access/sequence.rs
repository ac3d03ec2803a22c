//! Sequences: values logged ahead.
