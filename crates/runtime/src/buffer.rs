//! Memory of ours that ONNX Runtime reads and writes in place.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use ort::AsPointer;
use ort::memory::Allocator;
use ort::session::{IoBinding, Session};
use ort::sys::ONNXTensorElementDataType;
use ort::value::DynValue;

/// One cache line, and the widest vector there is.
const ALIGNMENT: usize = 64;

/// A number that tensors can be made of: any bit pattern is a value, zero bits are zero.
pub(crate) trait Element: Copy + 'static {
    /// ONNX Runtime's word for it.
    const TYPE: ONNXTensorElementDataType;
}

impl Element for f32 {
    const TYPE: ONNXTensorElementDataType = ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}

impl Element for i64 {
    const TYPE: ONNXTensorElementDataType = ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
}

/// A fixed number of zeroed values, shared between its owner and the tensors that were made over it.
///
/// Whoever owns the buffer and the bindings made from it (`rows::Rows`) lets no slice of it live while a graph runs: the
/// slices below borrow the buffer, and running borrows the owner mutably.
#[derive(Debug)]
pub(crate) struct Buffer<T: Element> {
    memory: Arc<Memory>,
    len: usize,
    element: std::marker::PhantomData<T>,
}

#[derive(Debug)]
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: `Memory` is nothing but an address and a size; it never reads or writes what is there. All access goes through
// `Buffer`, whose slices follow the borrowing rules, and through ONNX Runtime while the owner is borrowed mutably.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `Buffer::zeroed` with this very layout, and freed once: `Memory` is not cloned.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

impl<T: Element> Buffer<T> {
    /// `len` zeros, in memory that is there: every page has been touched, so that no later step waits for one, and memory
    /// that the machine does not have is missed now and not in the middle of an answer. None if there is not enough.
    pub(crate) fn zeroed(len: usize) -> Option<Self> {
        // At least one value, so that there is always an address to give.
        let bytes = len.max(1).checked_mul(size_of::<T>())?;
        let layout = Layout::from_size_align(bytes, ALIGNMENT).ok()?;
        // SAFETY: the layout is not of size 0.
        let start = NonNull::new(unsafe { alloc(layout) })?;
        // SAFETY: `bytes` bytes were just allocated there, and nobody else knows of them.
        unsafe { start.as_ptr().write_bytes(0, bytes) };
        Some(Self { memory: Arc::new(Memory { start, layout }), len, element: std::marker::PhantomData })
    }

    /// All values.
    pub(crate) fn slice(&self) -> &[T] {
        // SAFETY: `len` values were allocated, zeroed, and aligned; any bit pattern is a value of T; no graph runs while
        // the owner is borrowed.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr().cast(), self.len) }
    }

    /// All values.
    pub(crate) fn slice_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `slice`; and the buffer is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start.as_ptr().cast(), self.len) }
    }

    /// A tensor over a part of the buffer. It keeps the memory alive, and reads and writes it when a graph runs.
    pub(crate) fn tensor(&self, part: Range<usize>, dims: &[usize], allocator: &Allocator) -> ort::Result<Tensor> {
        assert!(part.end <= self.len && part.len() == dims.iter().product::<usize>(), "a tensor inside its buffer");
        let dims: Vec<i64> = dims.iter().map(|&dim| dim as i64).collect();
        let mut value = std::ptr::null_mut();
        // SAFETY: the part lies inside the allocation (asserted above), which the returned tensor keeps alive; the shape
        // and the byte count agree; the memory info is the CPU allocator's and the memory is the CPU's.
        let status = unsafe {
            let start = self.memory.start.as_ptr().cast::<T>().add(part.start);
            (ort::api().CreateTensorWithDataAsOrtValue)(
                allocator.memory_info().ptr(),
                start.cast(),
                part.len() * size_of::<T>(),
                dims.as_ptr(),
                dims.len(),
                T::TYPE,
                &mut value,
            )
        };
        // SAFETY: the status was just returned by ONNX Runtime and is looked at once.
        unsafe { ort::Error::result_from_status(status)? };
        let value = NonNull::new(value).ok_or_else(|| ort::Error::new("no tensor was made"))?;
        Ok(Tensor {
            // SAFETY: `value` is a tensor that nobody else owns.
            value: unsafe { DynValue::from_ptr(value, Some(allocator)) },
            _memory: Arc::clone(&self.memory),
        })
    }
}

/// A tensor over a part of a buffer.
#[derive(Debug)]
pub(crate) struct Tensor {
    value: DynValue,
    _memory: Arc<Memory>,
}

/// Tensors bound to a graph's inputs and outputs, ready to run again and again.
#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) io: IoBinding,
    held: Vec<Tensor>,
}

impl Binding {
    pub(crate) fn new(session: &Session) -> ort::Result<Self> {
        Ok(Self { io: session.create_binding()?, held: Vec::new() })
    }

    /// The same tensor may be bound as an input and as an output: it is then updated in place. `ort`'s own methods refuse
    /// outputs over foreign memory, so its C functions are called.
    pub(crate) fn bind(&mut self, tensor: Tensor, input: Option<&str>, output: Option<&str>) -> ort::Result<()> {
        let io = self.io.ptr().cast_mut();
        let value = tensor.value.ptr();
        for (name, bind) in [(input, ort::api().BindInput), (output, ort::api().BindOutput)] {
            let Some(name) = name else { continue };
            let name = std::ffi::CString::new(name).map_err(|_| ort::Error::new("a name with a zero byte"))?;
            // SAFETY: binding and value are alive (`held` keeps the value and its memory as long as the binding), and the
            // name is copied.
            let status = unsafe { bind(io, name.as_ptr(), value) };
            // SAFETY: the status was just returned by ONNX Runtime and is looked at once.
            unsafe { ort::Error::result_from_status(status)? };
        }
        self.held.push(tensor);
        Ok(())
    }
}
