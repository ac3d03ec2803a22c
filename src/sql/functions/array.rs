//! Filled next.
use super::call::ScalarFn;
pub(super) const SCALARS: &[(&str, ScalarFn)] = &[];
