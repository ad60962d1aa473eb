//! Giving nodes of a graph to our own operators, in memory: the bundle stays standard ONNX.
//!
//! A graph defines our operators as functions of standard ones. Leaving out a definition gives its nodes to the operator
//! of that name; `com.microsoft.MatMulNBits` has no definition and changes its domain.

use prost::Message;
use recurve_onnx::{ModelProto, NodeProto, OperatorSetIdProto};

use crate::operator::DOMAIN;

/// The quantized product.
const PRODUCT: &str = "MatMulNBits";
/// Where ONNX Runtime has it.
const MICROSOFT: &str = "com.microsoft";
/// Inputs of a product: those up to the scales, and the bias. The others change what is computed in ways our kernels do not
/// know.
const UNKNOWN_INPUTS: [usize; 2] = [3, 4];

/// An operator of ours that a graph defines.
pub(crate) struct Lowered {
    /// Its name.
    pub(crate) name: &'static str,
    /// The inputs that it takes, of those that the definition has.
    pub(crate) inputs: &'static [&'static str],
    /// What the names of any number of further inputs begin with.
    pub(crate) more: Option<&'static str>,
}

/// The graph with every node that `operators` know given to them; products as well.
///
/// # Errors
/// It is not a graph.
pub(crate) fn lower(graph: &[u8], operators: &[Lowered]) -> Result<Vec<u8>, String> {
    let mut model = ModelProto::decode(graph).map_err(|error| format!("it is not a graph: {error}"))?;
    let Some(graph) = &mut model.graph else { return Err("it has no graph".to_owned()) };
    for operator in operators {
        let Some(at) = model.functions.iter().position(|function| function.name == operator.name) else { continue };
        let definition = model.functions.remove(at);
        let position = |name: &str| definition.input.iter().position(|input| input == name);
        let mut kept: Vec<Option<usize>> = operator.inputs.iter().map(|name| position(name)).collect();
        let more = |input: &&String| operator.more.is_some_and(|prefix| input.starts_with(prefix));
        kept.extend(definition.input.iter().filter(more).map(|name| position(name)));
        for node in graph.node.iter_mut().filter(|node| node.domain == DOMAIN && node.op_type == operator.name) {
            node.input =
                kept.iter().map(|at| at.and_then(|at| node.input.get(at)).cloned().unwrap_or_default()).collect();
        }
    }
    graph.node.iter_mut().filter(|node| is_ours(node)).for_each(|node| node.domain = DOMAIN.to_owned());
    if model.opset_import.iter().all(|opset| opset.domain != DOMAIN) {
        model.opset_import.push(OperatorSetIdProto { domain: DOMAIN.to_owned(), version: 1 });
    }
    Ok(model.encode_to_vec())
}

/// Whether our kernels compute this product.
fn is_ours(node: &NodeProto) -> bool {
    let attribute = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name).and_then(|a| a.i);
    node.op_type == PRODUCT
        && node.domain == MICROSOFT
        && UNKNOWN_INPUTS.iter().all(|&at| node.input.get(at).is_none_or(String::is_empty))
        && matches!(attribute("bits"), Some(4 | 8))
        && matches!(attribute("block_size"), Some(32 | 64 | 128))
        && matches!((attribute("K"), attribute("block_size")), (Some(k), Some(block)) if k % block == 0)
}
