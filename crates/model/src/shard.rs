//! The files that hold a bundle's weights: what lies where is decided first, the bytes are streamed later.

use std::io::Write;

use rayon::prelude::*;
use serde::Serialize;

use crate::builder::Val;
use crate::quantize::distortion::Distortion;
use crate::quantize::stored::Place;
use crate::quantize::{Blocks, Importance};
use crate::weights::{Weights, WeightsError};
use recurve_onnx::{DataType, EXTERNAL, StringStringEntryProto, TensorProto};

/// Large tensors begin at multiples of this, so that they can be mapped by kernels with pages of 4, 16 or 64 KiB.
const LARGE_ALIGNMENT: u64 = 64 << 10;
/// Smaller ones lie closer together: mapping them wastes at most a page, padding them would cost 64 KiB each.
const SMALL_ALIGNMENT: u64 = 256;
/// Values that are read, converted and written at a time: bounds the memory of an export whatever the model's size.
const STREAMED_VALUES: usize = 4 << 20;

/// Why a shard could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The weights could not be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The output could not be written.
    #[error("the weights cannot be written: {0}")]
    Write(#[from] std::io::Error),
}

/// How far one matrix moved when it was stored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorReport {
    /// Its name in the graph.
    pub name: String,
    /// The checkpoint's tensors that it is made of, one below the other.
    pub sources: Vec<String>,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// `f32`, `int8` or `int4`.
    pub format: &'static str,
    /// Values that share a scale; none in f32.
    pub block_size: Option<usize>,
    /// Root mean square error over root mean square value.
    pub relative_rms: f64,
    /// Largest error of one value.
    pub max_abs: f64,
}

/// One file of weights: the embedding, a layer, or what comes after the layers.
#[derive(Debug)]
pub struct Shard {
    name: String,
    entries: Vec<Entry>,
    bytes: u64,
}

/// Values that are written together.
#[derive(Debug)]
struct Entry {
    name: String,
    recipe: Recipe,
    /// Where each of its tensors begins: one, or the quantized values and their scales.
    offsets: Vec<u64>,
}

/// Where the values of a tensor of the graph come from.
#[derive(Debug)]
pub(crate) enum Recipe {
    /// A matrix: tensors of the checkpoint with `columns` columns, one below the other, each with its rows.
    Matrix { sources: Vec<(String, usize)>, columns: usize, blocks: Option<Blocks> },
    /// Vectors one after another, each with its length.
    Vectors(Vec<(String, usize)>),
    /// `1 + weight`: a norm's factor.
    OnePlus(String, usize),
    /// One tap of a depthwise convolution's `[channels, 1, taps]`.
    Tap { source: String, channels: usize, taps: usize, tap: usize },
    /// Two tensors of `rows` rows of `width` values, side by side.
    Beside { left: String, right: String, rows: usize, width: usize },
    /// `-8 softplus(param)`: the logarithm of the recurrence's decay at a full gate.
    Decay(String, usize),
}

impl Recipe {
    /// Size of each tensor that it makes, in bytes.
    fn sizes(&self) -> Vec<u64> {
        let f32s = |count: usize| vec![4 * count as u64];
        match self {
            Recipe::Matrix { sources, columns, blocks } => {
                let values = count_rows(sources) * columns;
                match blocks {
                    None => f32s(values),
                    Some(blocks) => vec![blocks.bytes(values) as u64, 4 * (values / blocks.size) as u64],
                }
            }
            Recipe::Vectors(parts) => f32s(parts.iter().map(|(_, len)| len).sum()),
            Recipe::OnePlus(_, len) | Recipe::Decay(_, len) => f32s(*len),
            Recipe::Tap { channels, .. } => f32s(*channels),
            Recipe::Beside { rows, width, .. } => f32s(2 * rows * width),
        }
    }
}

/// Rows of a matrix that is made of these.
pub(crate) fn count_rows(sources: &[(String, usize)]) -> usize {
    sources.iter().map(|(_, rows)| rows).sum()
}

/// What the graph needs to know of a tensor that lies in a shard.
#[derive(Debug, Clone)]
pub(crate) struct Initializer {
    name: String,
    dtype: DataType,
    dims: Vec<usize>,
    shard: usize,
    offset: u64,
    bytes: u64,
}

impl Initializer {
    /// As the graph has it, with the shard's file name.
    pub(crate) fn proto(&self, files: &[String]) -> TensorProto {
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
        TensorProto {
            dims: self.dims.iter().map(|&dim| dim as i64).collect(),
            data_type: self.dtype as i32,
            name: self.name.clone(),
            raw_data: None,
            external_data: vec![
                entry("location", files[self.shard].clone()),
                entry("offset", self.offset.to_string()),
                entry("length", self.bytes.to_string()),
            ],
            data_location: EXTERNAL,
        }
    }
}

/// The shards of a bundle while its graph is built.
#[derive(Debug, Default)]
pub(crate) struct Shards {
    shards: Vec<Shard>,
    initializers: Vec<Initializer>,
}

impl Shards {
    /// Begins the next shard; tensors added from here on lie in it.
    pub(crate) fn begin(&mut self, name: String) {
        self.shards.push(Shard { name, entries: Vec::new(), bytes: 0 });
    }

    /// An f32 tensor of this shape.
    pub(crate) fn tensor(&mut self, name: String, dims: &[usize], recipe: Recipe) -> Val {
        self.entry(name.clone(), recipe, &[(name.clone(), DataType::Float, dims)]);
        Val(name)
    }

    /// A quantized matrix: its values `[rows, columns / block, bytes of a block]` and scales `[rows, columns / block]`.
    pub(crate) fn quantized(
        &mut self,
        name: &str,
        sources: Vec<(String, usize)>,
        columns: usize,
        blocks: Blocks,
    ) -> [Val; 2] {
        let rows = count_rows(&sources);
        let names = [format!("{name}.int{}", blocks.bits.count()), format!("{name}.scale")];
        let per_row = columns / blocks.size;
        let recipe = Recipe::Matrix { sources, columns, blocks: Some(blocks) };
        let tensors: [(String, DataType, &[usize]); 2] = [
            (names[0].clone(), DataType::Uint8, &[rows, per_row, blocks.bytes(blocks.size)]),
            (names[1].clone(), DataType::Float, &[rows, per_row]),
        ];
        self.entry(name.to_owned(), recipe, &tensors);
        names.map(Val)
    }

    /// The same bytes under another shape: two initializers that point at one place, where a `Reshape` node would be
    /// folded into a copy.
    pub(crate) fn alias(&mut self, of: &Val, name: String, dims: &[usize]) -> Val {
        let same = self.initializers.iter().filter(|known| known.name == of.0);
        let alias: Vec<_> =
            same.map(|known| Initializer { name: name.clone(), dims: dims.to_vec(), ..known.clone() }).collect();
        self.initializers.extend(alias);
        Val(name)
    }

    fn entry(&mut self, name: String, recipe: Recipe, tensors: &[(String, DataType, &[usize])]) {
        if self.shards.is_empty() {
            self.begin("weights".to_owned());
        }
        let index = self.shards.len() - 1;
        let shard = &mut self.shards[index];
        let mut offsets = Vec::new();
        for (bytes, (name, dtype, dims)) in recipe.sizes().into_iter().zip(tensors) {
            let alignment = if bytes >= LARGE_ALIGNMENT { LARGE_ALIGNMENT } else { SMALL_ALIGNMENT };
            let offset = shard.bytes.next_multiple_of(alignment);
            shard.bytes = offset + bytes;
            offsets.push(offset);
            self.initializers.push(Initializer {
                name: name.clone(),
                dtype: *dtype,
                dims: dims.to_vec(),
                shard: index,
                offset,
                bytes,
            });
        }
        shard.entries.push(Entry { name, recipe, offsets });
    }

    /// The shards in order, and what the graph says of their tensors.
    pub(crate) fn finish(self) -> (Vec<Shard>, Vec<Initializer>) {
        (self.shards, self.initializers)
    }
}

impl Shard {
    /// `embed`, `layer-00` and so on, `final`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its size, known before it is written.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The checkpoint's matrices that it holds in few bits, and where.
    pub(crate) fn quantized(&self) -> impl Iterator<Item = (String, Place)> {
        let matrices = self.entries.iter().filter_map(|entry| match &entry.recipe {
            Recipe::Matrix { sources, columns, blocks: Some(blocks) } => Some((entry, sources, *columns, *blocks)),
            _ => None,
        });
        matrices.flat_map(|(entry, sources, columns, blocks)| {
            let mut before = 0;
            sources.iter().map(move |(name, rows)| {
                let values = entry.offsets[0] + blocks.bytes(before) as u64;
                let scales = entry.offsets[1] + 4 * (before / blocks.size) as u64;
                before += rows * columns;
                (name.clone(), Place::new(blocks, rows * columns, values, scales))
            })
        })
    }

    /// Writes all of it to `out`, which gets exactly [`Shard::bytes`] bytes; calls `progress` with the bytes written
    /// since the last call. 4-bit values are rounded for the least error by `importance`, where there is one. Returns a
    /// report for each matrix.
    ///
    /// # Errors
    /// Weights cannot be read or are not finite, or `out` fails.
    pub fn write(
        &self,
        weights: &dyn Weights,
        importance: Option<&Importance>,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Vec<TensorReport>, ShardError> {
        let mut sink = Sink { out, progress, position: 0 };
        let mut reports = Vec::new();
        for entry in &self.entries {
            reports.extend(entry.write(weights, importance, &mut sink)?);
        }
        Ok(reports)
    }
}

impl Entry {
    fn write(
        &self,
        weights: &dyn Weights,
        importance: Option<&Importance>,
        sink: &mut Sink<'_>,
    ) -> Result<Option<TensorReport>, ShardError> {
        sink.pad_to(self.offsets[0])?;
        let values = match &self.recipe {
            Recipe::Matrix { sources, columns, blocks } => {
                let matrix = Matrix { sources, columns: *columns };
                let distortion = match blocks {
                    None => matrix.write_f32(weights, sink)?,
                    Some(blocks) => matrix.write_quantized(weights, importance, *blocks, self.offsets[1], sink)?,
                };
                return Ok(Some(TensorReport {
                    name: self.name.clone(),
                    sources: sources.iter().map(|(name, _)| name.clone()).collect(),
                    shape: [count_rows(sources), *columns],
                    format: match blocks.map(|blocks| blocks.bits.count()) {
                        None => "f32",
                        Some(4) => "int4",
                        Some(_) => "int8",
                    },
                    block_size: blocks.map(|blocks| blocks.size),
                    relative_rms: distortion.relative_rms(),
                    max_abs: distortion.max_abs(),
                }));
            }
            Recipe::Vectors(parts) => {
                let mut all = Vec::new();
                for (name, len) in parts {
                    all.extend(weights.all(name, *len)?);
                }
                all
            }
            Recipe::OnePlus(name, len) => weights.all(name, *len)?.into_iter().map(|value| 1.0 + value).collect(),
            Recipe::Decay(name, len) => weights.all(name, *len)?.into_iter().map(log_decay).collect(),
            Recipe::Tap { source, channels, taps, tap } => {
                weights.all(source, channels * taps)?.into_iter().skip(*tap).step_by(*taps).collect()
            }
            Recipe::Beside { left, right, rows, width } => {
                let (left, right) = (weights.all(left, rows * width)?, weights.all(right, rows * width)?);
                left.chunks_exact(*width)
                    .zip(right.chunks_exact(*width))
                    .flat_map(|(l, r)| l.iter().chain(r).copied())
                    .collect()
            }
        };
        sink.write_f32(&values)?;
        Ok(None)
    }
}

/// `-8 softplus(param)`, in f64 and rounded once.
pub(crate) fn log_decay(param: f32) -> f32 {
    let x = f64::from(param);
    // log(1 + e^x) without overflow: max(x, 0) + log(1 + e^-|x|).
    (-8.0 * (x.max(0.0) + libm::log1p(libm::exp(-x.abs())))) as f32
}

struct Matrix<'a> {
    sources: &'a [(String, usize)],
    columns: usize,
}

impl Matrix<'_> {
    /// Calls `each` with runs of whole rows, in order, and with the tensor that they are of.
    fn stream(
        &self,
        weights: &dyn Weights,
        mut each: impl FnMut(&str, &[f32]) -> Result<(), ShardError>,
    ) -> Result<(), ShardError> {
        let per_run = (STREAMED_VALUES / self.columns).max(1);
        let mut buffer = Vec::new();
        for (source, rows) in self.sources {
            let mut row = 0;
            while row < *rows {
                let run = per_run.min(rows - row);
                buffer.resize(run * self.columns, 0.0);
                weights.read(source, row * self.columns, &mut buffer)?;
                each(source, &buffer)?;
                row += run;
            }
        }
        Ok(())
    }

    fn write_f32(&self, weights: &dyn Weights, sink: &mut Sink<'_>) -> Result<Distortion, ShardError> {
        let mut distortion = Distortion::default();
        self.stream(weights, |_, values| {
            distortion.add(values, values);
            sink.write_f32(values)
        })?;
        Ok(distortion)
    }

    fn write_quantized(
        &self,
        weights: &dyn Weights,
        importance: Option<&Importance>,
        blocks: Blocks,
        scales_offset: u64,
        sink: &mut Sink<'_>,
    ) -> Result<Distortion, ShardError> {
        let columns = self.columns;
        let mut all_scales = Vec::with_capacity(count_rows(self.sources) * columns / blocks.size);
        let mut distortion = Distortion::default();
        self.stream(weights, |source, values| {
            let importance = importance.and_then(|importance| importance.of(source));
            let mut bytes = vec![0; blocks.bytes(values.len())];
            let mut scales = vec![0.0; values.len() / blocks.size];
            let rows: Vec<Distortion> = values
                .par_chunks_exact(columns)
                .zip(bytes.par_chunks_exact_mut(blocks.bytes(columns)))
                .zip(scales.par_chunks_exact_mut(columns / blocks.size))
                .map_init(
                    || vec![0.0; columns],
                    |back, ((values, bytes), scales)| {
                        blocks.quantize(values, importance, bytes, scales);
                        blocks.dequantize(bytes, scales, back);
                        let mut row = Distortion::default();
                        row.add(values, back);
                        row
                    },
                )
                .collect();
            rows.iter().for_each(|row| distortion.merge(row));
            all_scales.extend_from_slice(&scales);
            sink.write(&bytes)
        })?;
        sink.pad_to(scales_offset)?;
        sink.write_f32(&all_scales)?;
        Ok(distortion)
    }
}

/// Counts what is written.
struct Sink<'a> {
    out: &'a mut dyn Write,
    progress: &'a mut dyn FnMut(u64),
    position: u64,
}

impl Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), ShardError> {
        self.out.write_all(bytes)?;
        self.position += bytes.len() as u64;
        (self.progress)(bytes.len() as u64);
        Ok(())
    }

    fn write_f32(&mut self, values: &[f32]) -> Result<(), ShardError> {
        let mut bytes = vec![0; values.len() * 4];
        for (value, bytes) in values.iter().zip(bytes.chunks_exact_mut(4)) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        self.write(&bytes)
    }

    fn pad_to(&mut self, offset: u64) -> Result<(), ShardError> {
        let padding = vec![0; (offset - self.position) as usize];
        self.write(&padding)
    }
}
