//! Arrays of any type: shape, text form, subscripts.

use smallvec::SmallVec;

use super::{Datum, Oid};

/// An array. Elements in row-major order; no dimensions when empty.
#[derive(Clone, Debug)]
pub struct ArrayValue {
    /// Element type.
    pub elem: Oid,
    /// Length and lower bound of each dimension; at most 6.
    pub dims: SmallVec<[Dim; 1]>,
    /// Elements.
    pub values: Vec<Datum>,
}

/// One dimension of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dim {
    /// Number of elements, at least 1.
    pub len: i32,
    /// Subscript of the first.
    pub lower: i32,
}

impl ArrayValue {
    /// One dimension from subscript 1; empty if there are no values.
    pub fn one_dim(elem: Oid, values: Vec<Datum>) -> Self {
        Self::with_lower(elem, values, 1)
    }

    /// One dimension from this subscript (`int2vector` starts at 0).
    pub fn with_lower(elem: Oid, values: Vec<Datum>, lower: i32) -> Self {
        let mut dims = SmallVec::new();
        if !values.is_empty() {
            dims.push(Dim { len: i32::try_from(values.len()).unwrap_or(i32::MAX), lower });
        }
        Self { elem, dims, values }
    }

    /// No elements.
    pub fn empty(elem: Oid) -> Self {
        Self { elem, dims: SmallVec::new(), values: Vec::new() }
    }
}
