//! An operator's tensors as slices.

use ort::operator::ComputeContext;

use ort::value::{PrimitiveTensorElementType, ValueRef, ValueRefMut};

/// An input that the operator cannot do without.
pub(super) fn input<'c>(context: &'c ComputeContext, index: usize, name: &str) -> ort::Result<ValueRef<'c>> {
    context.input(index)?.ok_or_else(|| ort::Error::new(format!("input `{name}` is missing")))
}

/// An output of this shape.
pub(super) fn output<'c>(context: &'c ComputeContext, index: usize, dims: &[i64]) -> ort::Result<ValueRefMut<'c>> {
    context.output(index, dims.to_vec())?.ok_or_else(|| ort::Error::new(format!("output {index} was not made")))
}

/// Dimensions and values.
pub(super) fn read<'v, T: PrimitiveTensorElementType>(value: &'v ValueRef<'_>) -> ort::Result<(&'v [i64], &'v [T])> {
    let (shape, values) = value.try_extract_tensor::<T>()?;
    Ok((shape, values))
}
