//! `GatedGelu` and `SoftCap`: what is done value by value between two products.

use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::TensorElementType;
use recurve_kernels::{gated_gelu, soft_cap};

use super::tensors::{input, output, read};
use super::{Shared, guarded};

/// `gated [.., width] = gelu_tanh(gate) · up` for `branches [.., 2 · width]`.
pub(super) struct GatedGelu(pub(super) Shared);

/// `y = cap · tanh(x / cap)`.
pub(super) struct SoftCap(pub(super) Shared);

/// One node of either.
pub(super) enum ElementwiseKernel {
    GatedGelu(Shared),
    SoftCap(Shared, f32),
}

fn one_input() -> [OperatorInput; 1] {
    [OperatorInput::required(TensorElementType::Float32)]
}

fn one_output() -> [OperatorOutput; 1] {
    [OperatorOutput::required(TensorElementType::Float32)]
}

impl Operator for GatedGelu {
    type Kernel<'a> = ElementwiseKernel;

    fn name(&self) -> &str {
        "GatedGelu"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        one_input()
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        one_output()
    }

    fn create_kernel<'a>(&self, _: &KernelContext<'a>) -> ort::Result<ElementwiseKernel> {
        Ok(ElementwiseKernel::GatedGelu(self.0.clone()))
    }
}

impl Operator for SoftCap {
    type Kernel<'a> = ElementwiseKernel;

    fn name(&self) -> &str {
        "SoftCap"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        one_input()
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        one_output()
    }

    fn create_kernel<'a>(&self, context: &KernelContext<'a>) -> ort::Result<ElementwiseKernel> {
        guarded(self.name(), || {
            let cap = context.get::<f32>("cap").ok_or_else(|| ort::Error::new("SoftCap has no attribute `cap`"))?;
            Ok(ElementwiseKernel::SoftCap(self.0.clone(), cap))
        })
    }
}

impl Kernel for ElementwiseKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        guarded(self.name(), || self.map(context))
    }
}

impl ElementwiseKernel {
    fn name(&self) -> &'static str {
        match self {
            Self::GatedGelu(_) => "GatedGelu",
            Self::SoftCap(..) => "SoftCap",
        }
    }

    fn map(&self, context: &ComputeContext) -> ort::Result<()> {
        let x = input(context, 0, "x")?;
        let (dims, x) = read::<f32>(&x)?;
        let mut dims = dims.to_vec();
        match self {
            ElementwiseKernel::SoftCap(shared, cap) => {
                let mut y = output(context, 0, &dims)?;
                let (_, y) = y.try_extract_tensor_mut::<f32>()?;
                soft_cap(&mut shared.enter().pool, *cap, x, y);
            }
            ElementwiseKernel::GatedGelu(shared) => {
                let width = match dims.last_mut() {
                    Some(last) if *last > 0 && *last % 2 == 0 => {
                        *last /= 2;
                        *last as usize
                    }
                    _ => return Err(ort::Error::new(format!("GatedGelu: branches {dims:?} are not two"))),
                };
                let mut y = output(context, 0, &dims)?;
                let (_, y) = y.try_extract_tensor_mut::<f32>()?;
                gated_gelu(&mut shared.enter().pool, x, y, width);
            }
        }
        Ok(())
    }
}
