//! How the two operands of a block product lie in memory.
//!
//! Weights are read as ONNX stores them for `MatMulNBits`: row by row, each row's values one after another in blocks that
//! share a scale. Activations are rounded to 8 bits in units of 32 values and laid out for the kernels in groups of 16
//! units, so that one vector lane works on one unit: a kernel then converts to floating point once for 32 products.

/// Activations that share a scale.
pub(crate) const UNIT: usize = 32;
/// Units whose sums are kept side by side.
pub(crate) const LANES: usize = 16;
/// Activations of one group.
pub(crate) const GROUP: usize = UNIT * LANES;

/// Bits of one quantized weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bits {
    /// Two values a byte, the even one in the low half; zero is 8.
    Four,
    /// One value a byte; zero is 128.
    Eight,
}

impl Bits {
    /// From the operator's attribute.
    pub fn from_count(bits: i64) -> Option<Self> {
        match bits {
            4 => Some(Bits::Four),
            8 => Some(Bits::Eight),
            _ => None,
        }
    }

    /// Bytes of `values` weights.
    pub const fn bytes(self, values: usize) -> usize {
        match self {
            Bits::Four => values / 2,
            Bits::Eight => values,
        }
    }

    /// The stored value that stands for 0.
    pub const fn zero(self) -> i32 {
        match self {
            Bits::Four => 8,
            Bits::Eight => 128,
        }
    }
}

/// Why a matrix cannot be multiplied with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Blocks that no kernel knows.
    #[error("block_size is {0}; 32, 64 and 128 are known")]
    Block(usize),
    /// Rows that are no whole number of blocks.
    #[error("rows have {columns} values, which is no multiple of block_size {block}")]
    Columns {
        /// Values of a row.
        columns: usize,
        /// Values that share a scale.
        block: usize,
    },
    /// A tensor of another size.
    #[error("{tensor} has {found} elements; {rows} rows of {columns} values need {needed}")]
    Size {
        /// `values`, `scales` or `bias`.
        tensor: &'static str,
        /// Its elements.
        found: usize,
        /// What the shape needs.
        needed: usize,
        /// Rows of the matrix.
        rows: usize,
        /// Values of a row.
        columns: usize,
    },
}

/// The size and format of a quantized matrix, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    rows: usize,
    columns: usize,
    bits: Bits,
    block: usize,
}

impl Shape {
    /// `rows` of `columns` values each, `block` of which share a scale.
    ///
    /// # Errors
    /// A block size other than 32, 64, 128, or rows that are no whole number of blocks.
    pub fn new(rows: usize, columns: usize, bits: Bits, block: usize) -> Result<Self, LayoutError> {
        if ![32, 64, 128].contains(&block) {
            return Err(LayoutError::Block(block));
        }
        if !columns.is_multiple_of(block) {
            return Err(LayoutError::Columns { columns, block });
        }
        Ok(Self { rows, columns, bits, block })
    }

    /// Rows of the matrix: outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row: inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Format of the values.
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// Values that share a scale.
    pub fn block(&self) -> usize {
        self.block
    }

    /// Bytes of one row's values.
    pub fn row_bytes(&self) -> usize {
        self.bits.bytes(self.columns)
    }

    /// Scales of one row.
    pub fn row_scales(&self) -> usize {
        self.columns / self.block
    }

    /// Groups that one row of activations takes; the last one may be partly empty.
    pub fn groups(&self) -> usize {
        self.columns.div_ceil(GROUP)
    }
}

/// A quantized matrix `[rows, columns]` where it lies.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    pub(crate) shape: Shape,
    pub(crate) values: &'a [u8],
    pub(crate) scales: &'a [f32],
}

impl<'a> Matrix<'a> {
    /// Values and scales of the given shape.
    ///
    /// # Errors
    /// A slice is not of the size that the shape needs.
    pub fn new(shape: Shape, values: &'a [u8], scales: &'a [f32]) -> Result<Self, LayoutError> {
        // What no address can hold is no size of a slice.
        shape.check("values", values.len(), shape.rows.saturating_mul(shape.row_bytes()))?;
        shape.check("scales", scales.len(), shape.rows.saturating_mul(shape.row_scales()))?;
        Ok(Self { shape, values, scales })
    }

    /// Its size and format.
    pub fn shape(&self) -> Shape {
        self.shape
    }
}

impl Shape {
    pub(crate) fn check(&self, tensor: &'static str, found: usize, needed: usize) -> Result<(), LayoutError> {
        match found == needed {
            true => Ok(()),
            false => Err(LayoutError::Size { tensor, found, needed, rows: self.rows, columns: self.columns }),
        }
    }
}

/// 512 rounded activations of one row: unit `u` of the group has lane [`lane`]`(u)`.
///
/// A kernel loads four times four weights vectors and transposes their 32-bit words inside 128-bit parts; the lanes' order
/// is the one which that gives.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Group {
    /// Four activations of each lane in each plane. 4 bits: plane `j` below 4 has the even ones of the unit's values
    /// `8j..8j+8`, plane `4 + j` the odd ones. 8 bits: plane `j` has values `4j..4j+4`.
    pub(crate) planes: [[i8; 4 * LANES]; 8],
    /// For each lane, minus the stored zero times the sum of its activations: what the sum of products begins with where
    /// the stored weights are taken as they are.
    pub(crate) offset: [i32; LANES],
    /// The scale of each lane's activations.
    pub(crate) scale: [f32; LANES],
}

impl Group {
    /// No activations.
    pub(crate) const EMPTY: Group = Group { planes: [[0; 4 * LANES]; 8], offset: [0; LANES], scale: [0.0; LANES] };
}

/// The lane of a group's unit.
pub(crate) const fn lane(unit: usize) -> usize {
    4 * (unit % 4) + unit / 4
}

/// For each lane, the index of its scale among a group's scales of blocks of this size.
#[cfg(target_arch = "x86_64")]
pub(crate) fn scale_index(block: usize) -> &'static [i32; LANES] {
    const fn index(block: usize) -> [i32; LANES] {
        let mut index = [0; LANES];
        let mut unit = 0;
        while unit < LANES {
            index[lane(unit)] = (unit * UNIT / block) as i32;
            unit += 1;
        }
        index
    }
    const OF: [[i32; LANES]; 3] = [index(32), index(64), index(128)];
    &OF[match block {
        32 => 0,
        64 => 1,
        _ => 2,
    }]
}

/// The sum of a row's lanes, in the one order that all kernels use.
pub(crate) fn sum_lanes(lanes: &[f32; LANES]) -> f32 {
    let part = |i: usize| (lanes[i] + lanes[8 + i]) + (lanes[4 + i] + lanes[12 + i]);
    (part(0) + part(2)) + (part(1) + part(3))
}
