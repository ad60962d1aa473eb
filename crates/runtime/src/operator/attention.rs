//! `LocalAttention`: what lies between the two products of an attention block.

use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::{TensorElementType, ValueRef, ValueRefMut};
use recurve_kernels::{AttentionShape, AttentionStep, Rings, attention};

use super::tensors::{input, output, read};
use super::{Shared, guarded};

/// The operator.
pub(super) struct LocalAttention(pub(super) Shared);

/// Its inputs, by the names that the graph's definition gives them. Without rotary positions, the last two are not there.
pub(super) const INPUTS: [&str; 6] = ["qkv", "keys_before", "values_before", "start", "cos", "sin"];

/// Its name, in graphs and in errors.
const NAME: &str = "LocalAttention";

/// The most heads, and the largest window: sizes that are made of them stay numbers.
const MOST: usize = 1 << 30;

/// One node.
pub(super) struct AttentionKernel {
    shared: Shared,
    heads: usize,
    window: usize,
}

impl Operator for LocalAttention {
    type Kernel<'a> = AttentionKernel;

    fn name(&self) -> &str {
        NAME
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let float = || OperatorInput::required(TensorElementType::Float32);
        let angles = || OperatorInput::optional(TensorElementType::Float32);
        [float(), float(), float(), OperatorInput::required(TensorElementType::Int64), angles(), angles()]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [const { OperatorOutput::required(TensorElementType::Float32) }; 3]
    }

    fn create_kernel<'a>(&self, context: &KernelContext<'a>) -> ort::Result<AttentionKernel> {
        guarded(NAME, || {
            let size = |name: &str| match context.get::<i64>(name).map(usize::try_from) {
                Some(Ok(value)) if (1..=MOST).contains(&value) => Ok(value),
                other => Err(ort::Error::new(format!("{NAME}: attribute `{name}` is {other:?}, not from 1 to {MOST}"))),
            };
            Ok(AttentionKernel { shared: self.0.clone(), heads: size("heads")?, window: size("window")? })
        })
    }
}

impl AttentionKernel {
    fn mix(&self, context: &ComputeContext) -> ort::Result<()> {
        let [qkv, keys, values, start] = [0, 1, 2, 3]
            .map(|i| input(context, i, INPUTS[i]))
            .into_iter()
            .collect::<ort::Result<Vec<_>>>()?
            .try_into()
            .map_err(|_| ort::Error::new(format!("{NAME}: inputs are missing")))?;
        let angles = match context.num_inputs()? {
            6 => [context.input(4)?, context.input(5)?],
            _ => [None, None],
        };
        let (qkv_dims, qkv) = read::<f32>(&qkv)?;
        let (ring_dims, _) = read::<f32>(&keys)?;
        let ring_dims = ring_dims.to_vec();
        let [cos, sin] = &angles;
        let (cos_dims, cos) = cos.as_ref().map(read::<f32>).transpose()?.unwrap_or((&[], &[]));
        let (_, sin) = sin.as_ref().map(read::<f32>).transpose()?.unwrap_or((&[], &[]));
        let shape = self.shape(qkv_dims, &ring_dims, cos_dims)?;
        let (_, starts) = read::<i64>(&start)?;
        let step = AttentionStep { shape, qkv, starts, cos, sin };

        let dims = [qkv_dims[0], qkv_dims[1], (shape.heads * shape.dim) as i64];
        let mut mixed = output(context, 0, &dims)?;
        let mut keys_after = output(context, 1, &ring_dims)?;
        let mut values_after = output(context, 2, &ring_dims)?;
        let mut rings = Rings { keys: carried(&keys, &mut keys_after)?, values: carried(&values, &mut values_after)? };
        let (_, mixed) = mixed.try_extract_tensor_mut::<f32>()?;
        let workshop = &mut *self.shared.enter();
        attention(&mut workshop.pool, &mut workshop.attention, &step, &mut rings, mixed);
        Ok(())
    }

    fn shape(&self, qkv: &[i64], ring: &[i64], angles: &[i64]) -> ort::Result<AttentionShape> {
        match (qkv, ring) {
            ([rows, tokens, width], [_, kv_heads, slots, dim])
                if *width == (self.heads as i64 + 2 * kv_heads) * dim =>
            {
                Ok(AttentionShape {
                    rows: *rows as usize,
                    tokens: *tokens as usize,
                    heads: self.heads,
                    kv_heads: *kv_heads as usize,
                    dim: *dim as usize,
                    rotary: 2 * angles.last().copied().unwrap_or(0) as usize,
                    ring: *slots as usize,
                    window: self.window,
                })
            }
            _ => Err(ort::Error::new(format!(
                "{NAME}: qkv {qkv:?} and ring {ring:?} do not go with {} heads",
                self.heads
            ))),
        }
    }
}

/// The ring after the step, holding what it held before. Where input and output are the same memory, as the engine binds
/// them, nothing is copied.
fn carried<'v>(before: &ValueRef<'_>, after: &'v mut ValueRefMut<'_>) -> ort::Result<&'v mut [f32]> {
    let (_, held) = read::<f32>(before)?;
    let held: (*const f32, usize) = (held.as_ptr(), held.len());
    let (_, ring) = after.try_extract_tensor_mut::<f32>()?;
    if ring.len() != held.1 {
        let sizes = [held.1, ring.len()];
        return Err(ort::Error::new(format!("{NAME}: rings of keys and values differ: {sizes:?} values")));
    }
    if !std::ptr::eq(ring.as_ptr(), held.0) {
        let (_, held) = read::<f32>(before)?;
        ring.copy_from_slice(held);
    }
    Ok(ring)
}

impl Kernel for AttentionKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        guarded(NAME, || self.mix(context))
    }
}
