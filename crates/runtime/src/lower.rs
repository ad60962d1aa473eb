//! Giving nodes of a graph to our own operators, in memory: the bundle stays standard ONNX.
//!
//! A graph defines our operators as functions of standard ones. Leaving out a definition gives its nodes to the operator
//! of that name; `com.microsoft.MatMulNBits` has no definition and changes its domain.

use prost::Message;
use recurve_onnx::{FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto};

use crate::operator::DOMAIN;

/// The version of our operators that is implemented here.
const VERSION: i64 = 1;
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

/// The graph with every node that `operators` know given to them; products as well. None where there is no such node.
///
/// # Errors
/// It is not a graph, or holds more than is read here and would lose it.
pub(crate) fn lower(bytes: &[u8], operators: &[Lowered]) -> Result<Option<Vec<u8>>, String> {
    let mut model = ModelProto::decode(bytes).map_err(|error| format!("it is not a graph: {error}"))?;
    let left = bytes.len().abs_diff(model.encoded_len());
    if left != 0 {
        return Err(format!("it holds {left} bytes of fields that are not read here and would be lost"));
    }
    let Some(graph) = &mut model.graph else { return Err("it has no graph".to_owned()) };
    let mut changed = false;
    // Of another version the operators may mean something else.
    let known = model.opset_import.iter().any(|opset| opset.domain == DOMAIN && opset.version == VERSION);
    for operator in operators.iter().filter(|_| known) {
        let is_definition = |function: &FunctionProto| function.domain == DOMAIN && function.name == operator.name;
        let Some(at) = model.functions.iter().position(is_definition) else { continue };
        // Nodes that are not in the graph itself are not changed: they need the definition.
        let inner = model.functions.iter().flat_map(|function| &function.node).any(|node| calls(node, operator.name))
            || graph.node.iter().flat_map(subgraphs).any(|graph| graph.node.iter().any(|n| calls(n, operator.name)));
        if inner {
            continue;
        }
        let definition = model.functions.remove(at);
        let position = |name: &str| definition.input.iter().position(|input| input == name);
        let mut kept: Vec<Option<usize>> = operator.inputs.iter().map(|name| position(name)).collect();
        let more = |input: &&String| operator.more.is_some_and(|prefix| input.starts_with(prefix));
        kept.extend(definition.input.iter().filter(more).map(|name| position(name)));
        for node in graph.node.iter_mut().filter(|node| node.domain == DOMAIN && node.op_type == operator.name) {
            node.input =
                kept.iter().map(|at| at.and_then(|at| node.input.get(at)).cloned().unwrap_or_default()).collect();
            changed = true;
        }
    }
    for node in graph.node.iter_mut().filter(|node| is_ours(node)) {
        node.domain = DOMAIN.to_owned();
        changed = true;
    }
    if model.opset_import.iter().all(|opset| opset.domain != DOMAIN) {
        model.opset_import.push(OperatorSetIdProto { domain: DOMAIN.to_owned(), version: VERSION });
    }
    Ok(changed.then(|| model.encode_to_vec()))
}

/// Whether a node, or one in a graph that it holds, is of this operator.
fn calls(node: &NodeProto, name: &str) -> bool {
    (node.domain == DOMAIN && node.op_type == name)
        || subgraphs(node).any(|graph| graph.node.iter().any(|node| calls(node, name)))
}

/// The graphs that a node holds, such as a condition's branches.
fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().filter_map(|attribute| attribute.g.as_ref())
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
    use recurve_onnx::AttributeProto;

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
        with_version(VERSION, nodes, functions)
    }

    fn with_version(version: i64, nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> Vec<u8> {
        let graph = Some(GraphProto { node: nodes, ..GraphProto::default() });
        let opset_import = vec![OperatorSetIdProto { domain: DOMAIN.into(), version }];
        ModelProto { graph, functions, opset_import, ..ModelProto::default() }.encode_to_vec()
    }

    /// The graph as it is loaded: lowered, or as it is.
    fn lowered(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> ModelProto {
        let model = model(nodes, functions);
        ModelProto::decode(lower(&model, &[ROUND]).unwrap().unwrap_or(model).as_slice()).unwrap()
    }

    fn call(name: &str, inputs: &[&str]) -> NodeProto {
        NodeProto {
            op_type: name.into(),
            domain: DOMAIN.into(),
            input: inputs.iter().map(ToString::to_string).collect(),
            ..NodeProto::default()
        }
    }

    fn definition(name: &str, domain: &str) -> FunctionProto {
        let input = ["a", "unused", "b", "tap_0", "tap_1"].map(str::to_owned).to_vec();
        FunctionProto { name: name.into(), domain: domain.into(), input, ..FunctionProto::default() }
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
        assert_eq!(lowered(Vec::new(), vec![definition("Round", "other")]).functions.len(), 1);
    }

    #[test]
    fn definitions_stay_that_are_of_another_version_or_used_out_of_reach() {
        let nodes = vec![call("Round", &["one", "two", "three"])];
        let other = with_version(VERSION + 1, nodes.clone(), vec![definition("Round", DOMAIN)]);
        assert_eq!(lower(&other, &[ROUND]), Ok(None));

        let branch = GraphProto { node: nodes.clone(), ..GraphProto::default() };
        let attribute = AttributeProto { name: "then".into(), g: Some(branch), ..AttributeProto::default() };
        let holder = NodeProto { op_type: "If".into(), attribute: vec![attribute], ..NodeProto::default() };
        let caller = FunctionProto { node: nodes.clone(), ..definition("Caller", DOMAIN) };
        for (more, functions) in [(vec![holder], vec![]), (vec![], vec![caller])] {
            let functions = [functions, vec![definition("Round", DOMAIN)]].concat();
            let all = model([nodes.clone(), more].concat(), functions);
            assert_eq!(lower(&all, &[ROUND]), Ok(None));
        }
    }

    #[test]
    fn a_graph_that_would_lose_something_is_refused() {
        // Field 6 of a model is its `doc_string`, which is not read.
        let graph = [model(vec![product(64, 32, 4, &["x", "values", "scales"])], Vec::new()), b"\x32\x02hi".to_vec()];
        assert!(lower(&graph.concat(), &[]).unwrap_err().contains("4 bytes of fields"));
    }

    #[test]
    fn products_that_are_left_are_found() {
        let ours = lowered(vec![product(64, 32, 4, &["x", "values", "scales"])], Vec::new()).encode_to_vec();
        assert!(!leaves_products(&ours));
        let zero = product(0, 32, 4, &["x", "values", "scales"]);
        let dense = NodeProto { op_type: "FusedMatMul".into(), ..NodeProto::default() };
        for left in [zero, dense] {
            assert!(leaves_products(&lowered(vec![left], Vec::new()).encode_to_vec()));
        }
    }

    #[test]
    fn what_is_no_graph_is_refused() {
        assert!(lower(b"\xff\xff", &[]).unwrap_err().contains("not a graph"));
        assert!(lower(&ModelProto::default().encode_to_vec(), &[]).unwrap_err().contains("no graph"));
    }
}
