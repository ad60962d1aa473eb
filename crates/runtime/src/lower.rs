//! Giving nodes of a graph to our own operators, in memory: the bundle stays standard ONNX.
//!
//! A graph defines our operators as functions of standard ones. Leaving out a definition gives its nodes to the operator
//! of that name; `com.microsoft.MatMulNBits` has no definition and changes its domain.

use prost::Message;
use recurve_onnx::{ModelProto, NodeProto, OperatorSetIdProto};

use crate::operator::DOMAIN;

/// The quantized product.
pub(crate) const PRODUCT: &str = "MatMulNBits";
/// Where ONNX Runtime has it.
pub(crate) const MICROSOFT: &str = "com.microsoft";
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
        let Some(at) =
            model.functions.iter().position(|function| function.domain == DOMAIN && function.name == operator.name)
        else {
            continue;
        };
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

/// Whether our kernels compute this node.
pub(crate) fn is_ours(node: &NodeProto) -> bool {
    node.op_type == PRODUCT
        && node.domain == MICROSOFT
        && UNKNOWN_INPUTS.iter().all(|&at| node.input.get(at).is_none_or(String::is_empty))
        && matches!(attribute(node, "bits"), Some(4 | 8))
        && matches!(attribute(node, "block_size"), Some(32 | 64 | 128))
        && attribute(node, "N").is_some_and(|n| n > 0)
        && matches!((attribute(node, "K"), attribute(node, "block_size")), (Some(k), Some(block)) if k > 0 && k % block == 0)
}

/// Whether a lowered graph leaves products to ONNX Runtime.
pub(crate) fn leaves_products(lowered: &[u8]) -> bool {
    let Ok(model) = ModelProto::decode(lowered) else { return false };
    let products = ["MatMul", "FusedMatMul", "Gemm", PRODUCT];
    model
        .graph
        .iter()
        .flat_map(|graph| &graph.node)
        .any(|node| node.domain != DOMAIN && products.contains(&node.op_type.as_str()))
}

/// A node's attribute, where it has it and it is an integer.
pub(crate) fn attribute(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|attribute| attribute.name == name)?.i
}

#[cfg(test)]
mod tests {
    use recurve_onnx::{AttributeProto, FunctionProto, GraphProto};

    use super::*;

    const ROUND: Lowered = Lowered { name: "Round", inputs: &["b", "a"], more: Some("tap_") };

    fn product(k: i64, block: i64, bits: i64, inputs: &[&str]) -> NodeProto {
        let int = |name: &str, value| AttributeProto { name: name.into(), i: Some(value), ..AttributeProto::default() };
        NodeProto {
            op_type: PRODUCT.into(),
            domain: MICROSOFT.into(),
            input: inputs.iter().map(ToString::to_string).collect(),
            attribute: vec![int("K", k), int("N", 7), int("block_size", block), int("bits", bits)],
            ..NodeProto::default()
        }
    }

    fn model(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> Vec<u8> {
        let graph = Some(GraphProto { node: nodes, ..GraphProto::default() });
        ModelProto { graph, functions, ..ModelProto::default() }.encode_to_vec()
    }

    fn lowered(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> ModelProto {
        ModelProto::decode(lower(&model(nodes, functions), &[ROUND]).unwrap().as_slice()).unwrap()
    }

    #[test]
    fn products_that_our_kernels_do_not_know_stay_with_onnx_runtime() {
        let plain = ["x", "values", "scales"];
        let cases = [
            (product(64, 32, 4, &plain), true),
            (product(128, 128, 8, &plain), true),
            (product(64, 32, 4, &["x", "values", "scales", "", "", "bias"]), true),
            (product(64, 32, 4, &["x", "values", "scales", "zero_points"]), false),
            (product(64, 32, 4, &["x", "values", "scales", "", "g_idx"]), false),
            (product(72, 32, 4, &plain), false),
            (product(64, 16, 4, &plain), false),
            (product(64, 32, 2, &plain), false),
            (NodeProto { domain: "other".into(), ..product(64, 32, 4, &plain) }, false),
            (NodeProto { attribute: Vec::new(), ..product(64, 32, 4, &plain) }, false),
        ];
        for (node, ours) in cases {
            let lowered = lowered(vec![node.clone()], Vec::new()).graph.unwrap().node.remove(0);
            let domain = if ours { DOMAIN } else { &node.domain };
            assert_eq!(lowered, NodeProto { domain: domain.to_owned(), ..node });
        }
    }

    #[test]
    fn definitions_of_ours_are_left_out_and_their_nodes_have_the_inputs_that_we_take() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let definition = |name: &str, domain: &str| FunctionProto {
            name: name.into(),
            domain: domain.into(),
            input: names(&["a", "unused", "b", "tap_0", "tap_1"]),
            ..FunctionProto::default()
        };
        let call = |name: &str, inputs: &[&str]| NodeProto {
            op_type: name.into(),
            domain: DOMAIN.into(),
            input: names(inputs),
            ..NodeProto::default()
        };
        let nodes = vec![
            call("Round", &["one", "two", "three", "four", "five"]),
            call("Round", &["one", "two"]),
            call("Other", &["one"]),
        ];
        let lowered = lowered(nodes, vec![definition("Round", DOMAIN), definition("Other", DOMAIN)]);
        let functions: Vec<_> = lowered.functions.iter().map(|function| function.name.as_str()).collect();
        assert_eq!(functions, ["Other"]);
        let inputs: Vec<_> = lowered.graph.unwrap().node.into_iter().map(|node| node.input).collect();
        assert_eq!(inputs[0], ["three", "one", "four", "five"]);
        assert_eq!(inputs[1], ["", "one", "", ""], "inputs at the end may be left out");
        assert_eq!(inputs[2], ["one"]);
        let domains: Vec<_> = lowered.opset_import.iter().map(|opset| (opset.domain.as_str(), opset.version)).collect();
        assert_eq!(domains, [(DOMAIN, 1)]);
    }

    #[test]
    fn definitions_of_others_stay() {
        let foreign = FunctionProto { name: "Round".into(), domain: "other".into(), ..FunctionProto::default() };
        assert_eq!(lowered(Vec::new(), vec![foreign]).functions.len(), 1);
    }

    #[test]
    fn products_that_are_left_are_found() {
        let ours = lower(&model(vec![product(64, 32, 4, &["x", "values", "scales"])], Vec::new()), &[]).unwrap();
        assert!(!leaves_products(&ours));
        let zero = product(0, 32, 4, &["x", "values", "scales"]);
        let dense = NodeProto { op_type: "FusedMatMul".into(), ..NodeProto::default() };
        for left in [zero, dense] {
            assert!(leaves_products(&lower(&model(vec![left], Vec::new()), &[]).unwrap()));
        }
    }

    #[test]
    fn what_is_no_graph_is_refused() {
        assert!(lower(b"\xff\xff", &[]).unwrap_err().contains("not a graph"));
        assert!(lower(&ModelProto::default().encode_to_vec(), &[]).unwrap_err().contains("no graph"));
    }
}
