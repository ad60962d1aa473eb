//! `MatMulNBits`: `y = x Wᵀ + b` with 4-bit or 8-bit weights, read where they are mapped.

use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::TensorElementType;
use recurve_kernels::{Bits, Matrix, Shape, product};

use super::tensors::{input, output, read};
use super::{Shared, guarded};
use crate::lower::PRODUCT;

/// The operator, with the inputs of `com.microsoft.MatMulNBits`.
pub(super) struct Product(pub(super) Shared);

/// One node.
pub(super) struct ProductKernel {
    shared: Shared,
    shape: Shape,
}

/// Position of the optional bias among the inputs.
const BIAS: usize = 5;

impl Operator for Product {
    type Kernel<'a> = ProductKernel;

    fn name(&self) -> &str {
        PRODUCT
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [
            OperatorInput::required(TensorElementType::Float32),
            OperatorInput::required(TensorElementType::Uint8),
            OperatorInput::required(TensorElementType::Float32),
            // Zero points and the order of columns: never there in a node that was given to us.
            OperatorInput::optional(TensorElementType::Uint8),
            OperatorInput::optional(TensorElementType::Int32),
            OperatorInput::optional(TensorElementType::Float32),
        ]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'a>(&self, context: &KernelContext<'a>) -> ort::Result<ProductKernel> {
        guarded(PRODUCT, || self.kernel(context))
    }
}

impl Product {
    fn kernel(&self, context: &KernelContext<'_>) -> ort::Result<ProductKernel> {
        let attribute = |name: &str| {
            context.get::<i64>(name).ok_or_else(|| ort::Error::new(format!("{PRODUCT} has no attribute `{name}`")))
        };
        let size = |name: &str| {
            let value = attribute(name)?;
            usize::try_from(value).map_err(|_| ort::Error::new(format!("{PRODUCT}: {name} is {value}")))
        };
        let bits = attribute("bits")?;
        let bits = Bits::from_count(bits).ok_or_else(|| ort::Error::new(format!("{PRODUCT}: bits is {bits}")))?;
        let shape = Shape::new(size("N")?, size("K")?, bits, size("block_size")?)
            .map_err(|error| ort::Error::new(format!("{PRODUCT}: {error}")))?;
        Ok(ProductKernel { shared: self.0.clone(), shape })
    }
}

impl Kernel for ProductKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        guarded(PRODUCT, || self.multiply(context))
    }
}

impl ProductKernel {
    fn multiply(&self, context: &ComputeContext) -> ort::Result<()> {
        let (x, values, scales) = (input(context, 0, "A")?, input(context, 1, "B")?, input(context, 2, "scales")?);
        // Inputs at the end that are left out are not even counted.
        let bias = match context.num_inputs()? > BIAS {
            true => context.input(BIAS)?,
            false => None,
        };
        let (dims, x) = read::<f32>(&x)?;
        let bias = bias.as_ref().map(read::<f32>).transpose()?.map(|(_, bias)| bias);
        let mut dims = dims.to_vec();
        if dims.last() != Some(&(self.shape.columns() as i64)) {
            return Err(ort::Error::new(format!("{PRODUCT}: A {dims:?} has not {} columns", self.shape.columns())));
        }
        if let Some(last) = dims.last_mut() {
            *last = self.shape.rows() as i64;
        }
        let matrix = Matrix::new(self.shape, read::<u8>(&values)?.1, read::<f32>(&scales)?.1)
            .map_err(|error| ort::Error::new(format!("{PRODUCT}: {error}")))?;
        if bias.is_some_and(|bias| bias.len() != self.shape.rows()) {
            return Err(ort::Error::new(format!("{PRODUCT}: the bias has not {} values", self.shape.rows())));
        }
        let mut y = output(context, 0, &dims)?;
        let (_, y) = y.try_extract_tensor_mut::<f32>()?;
        let workshop = &mut *self.shared.enter();
        product(&workshop.kernels, &mut workshop.pool, &mut workshop.scratch, matrix, x, bias, y);
        Ok(())
    }
}
