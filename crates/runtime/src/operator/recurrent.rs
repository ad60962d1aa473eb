//! `RecurrentMix`: what lies between the two products of a recurrent block.

use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::TensorElementType;
use recurve_kernels::{RecurrentOutput, RecurrentShape, RecurrentStep, RecurrentWeights, recurrent};

use super::tensors::{input, output, read};
use super::{Shared, guarded};

/// The operator.
pub(super) struct RecurrentMix(pub(super) Shared);

/// Its name, in graphs and in errors.
const NAME: &str = "RecurrentMix";

/// Its inputs, by the names that the graph's definition gives them. Taps of the convolution follow.
pub(super) const INPUTS: [&str; 8] =
    ["branches", "conv_before", "lru_before", "continues", "gates", "gates_bias", "log_decay", "conv_bias"];

/// One node.
pub(super) struct RecurrentKernel(Shared);

impl Operator for RecurrentMix {
    type Kernel<'a> = RecurrentKernel;

    fn name(&self) -> &str {
        NAME
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let taps = OperatorInput::variadic(1).homogenous(TensorElementType::Float32);
        INPUTS.map(|_| OperatorInput::required(TensorElementType::Float32)).into_iter().chain([taps])
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [const { OperatorOutput::required(TensorElementType::Float32) }; 3]
    }

    fn create_kernel<'a>(&self, _: &KernelContext<'a>) -> ort::Result<RecurrentKernel> {
        Ok(RecurrentKernel(self.0.clone()))
    }
}

impl Kernel for RecurrentKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        guarded(NAME, || self.mix(context))
    }
}

impl RecurrentKernel {
    fn mix(&self, context: &ComputeContext) -> ort::Result<()> {
        let inputs = (0..context.num_inputs()?)
            .map(|i| input(context, i, INPUTS.get(i).copied().unwrap_or("tap")))
            .collect::<ort::Result<Vec<_>>>()?;
        let tensors = inputs.iter().map(read::<f32>).collect::<ort::Result<Vec<_>>>()?;
        let dims: Vec<&[i64]> = tensors.iter().map(|(dims, _)| *dims).collect();
        let shape = match (dims.first(), dims.get(1), dims.get(4)) {
            (Some([rows, tokens, _]), Some([_, kept, _]), Some([heads, gate, _])) => RecurrentShape {
                rows: *rows as usize,
                tokens: *tokens as usize,
                heads: *heads as usize,
                gate: *gate as usize,
                taps: *kept as usize + 1,
            },
            _ => return Err(ort::Error::new(format!("{NAME}: inputs of shapes {dims:?}"))),
        };
        let values: Vec<&[f32]> = tensors.iter().map(|(_, values)| *values).collect();
        let [branches, conv, lru, continues, gates, gates_bias, log_decay, conv_bias, taps @ ..] = values.as_slice()
        else {
            return Err(ort::Error::new(format!("{NAME}: inputs are missing")));
        };
        let weights = RecurrentWeights { gates, gates_bias, log_decay, conv_bias, taps };
        let step = RecurrentStep { shape, weights, branches, conv, lru, continues };
        let width = shape.width() as i64;
        let mut mixed = output(context, 0, &[shape.rows as i64, shape.tokens as i64, width])?;
        let mut conv_after = output(context, 1, dims[1])?;
        let mut lru_after = output(context, 2, dims[2])?;
        let mut out = RecurrentOutput {
            mixed: mixed.try_extract_tensor_mut::<f32>()?.1,
            conv: conv_after.try_extract_tensor_mut::<f32>()?.1,
            lru: lru_after.try_extract_tensor_mut::<f32>()?.1,
        };
        recurrent(&mut self.0.enter().pool, &step, &mut out);
        Ok(())
    }
}
