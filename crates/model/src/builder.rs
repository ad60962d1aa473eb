//! Builds a graph node by node. Every value gets a readable, unique name made of the scope it was made in.

use std::collections::HashMap;

use recurve_onnx::{
    AttributeProto, DataType, Dimension, DimensionProto, FunctionProto, GraphProto, NodeProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto, attribute_type,
};

/// The domain of ONNX's own operators.
pub(crate) const ONNX: &str = "";
/// The domain of our own operators: each is defined in the graph by operators of the other two.
pub(crate) const RECURVE: &str = "recurve";
/// The domain of ONNX Runtime's contributed operators.
pub(crate) const MICROSOFT: &str = "com.microsoft";

/// Name of a value in the graph.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Val(pub(crate) String);

/// An attribute of a node.
pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), i: Some(value), r#type: attribute_type::INT, ..Default::default() }
}

/// An attribute of a node.
pub(crate) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { name: name.to_owned(), ints: values.to_vec(), r#type: attribute_type::INTS, ..Default::default() }
}

/// An attribute of a node.
pub(crate) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { name: name.to_owned(), f: Some(value), r#type: attribute_type::FLOAT, ..Default::default() }
}

/// An attribute of a node.
pub(crate) fn string(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        s: Some(value.as_bytes().to_vec()),
        r#type: attribute_type::STRING,
        ..Default::default()
    }
}

/// An attribute of a node.
pub(crate) fn subgraph(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { name: name.to_owned(), g: Some(graph), r#type: attribute_type::GRAPH, ..Default::default() }
}

/// A dimension of a graph's input or output.
#[derive(Debug, Clone)]
pub(crate) enum Dim {
    Of(usize),
    Named(&'static str),
}

/// A graph's input or output.
pub(crate) fn value_info(name: &str, dtype: DataType, dims: &[Dim]) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|dim| DimensionProto {
            value: Some(match dim {
                Dim::Of(size) => Dimension::Value(*size as i64),
                Dim::Named(name) => Dimension::Param((*name).to_owned()),
            }),
        })
        .collect();
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorTypeProto { elem_type: dtype as i32, shape: Some(TensorShapeProto { dim }) }),
        }),
    }
}

/// Collects nodes, constants, inputs and outputs.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    known: HashMap<(i32, Vec<i64>, Vec<u8>), Val>,
    inputs: Vec<ValueInfoProto>,
    outputs: Vec<ValueInfoProto>,
    scope: String,
    made: HashMap<String, usize>,
}

impl Builder {
    /// All names made from here on begin with this.
    pub(crate) fn enter(&mut self, scope: impl Into<String>) {
        self.scope = scope.into();
    }

    /// A name in the present scope that nothing else has.
    pub(crate) fn fresh(&mut self, word: &str) -> String {
        let base = match self.scope.as_str() {
            "" => word.to_owned(),
            scope => format!("{scope}.{word}"),
        };
        let count = self.made.entry(base.clone()).or_insert(0);
        *count += 1;
        match *count {
            1 => base,
            n => format!("{base}_{n}"),
        }
    }

    /// Declares a graph input.
    pub(crate) fn input(&mut self, name: &str, dtype: DataType, dims: &[Dim]) -> Val {
        self.inputs.push(value_info(name, dtype, dims));
        Val(name.to_owned())
    }

    /// Declares a graph output; the value of that name is made by some node.
    pub(crate) fn output(&mut self, name: &str, dtype: DataType, dims: &[Dim]) -> Val {
        self.outputs.push(value_info(name, dtype, dims));
        Val(name.to_owned())
    }

    /// A node of ONNX's own domain with one output.
    pub(crate) fn op(&mut self, op_type: &str, inputs: &[&Val], attributes: Vec<AttributeProto>) -> Val {
        self.op_in(ONNX, op_type, inputs, attributes)
    }

    /// A node of the given domain with one output.
    pub(crate) fn op_in(
        &mut self,
        domain: &str,
        op_type: &str,
        inputs: &[&Val],
        attributes: Vec<AttributeProto>,
    ) -> Val {
        let output = Val(self.fresh(op_type));
        self.node(domain, op_type, inputs, std::slice::from_ref(&output), attributes);
        output
    }

    /// A node of ONNX Runtime's domain with one output.
    pub(crate) fn contrib(&mut self, op_type: &str, inputs: &[&Val], attributes: Vec<AttributeProto>) -> Val {
        self.op_in(MICROSOFT, op_type, inputs, attributes)
    }

    /// A node with the given outputs. An input with an empty name is one that is left out.
    pub(crate) fn node(
        &mut self,
        domain: &str,
        op_type: &str,
        inputs: &[&Val],
        outputs: &[Val],
        attributes: Vec<AttributeProto>,
    ) {
        let name = outputs.first().map(|output| output.0.clone()).unwrap_or_default();
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|val| val.0.clone()).collect(),
            output: outputs.iter().map(|val| val.0.clone()).collect(),
            name,
            op_type: op_type.to_owned(),
            attribute: attributes,
            domain: domain.to_owned(),
        });
    }

    /// Cuts the last axis into pieces of these widths.
    pub(crate) fn split<const N: usize>(&mut self, value: &Val, widths: [usize; N]) -> [Val; N] {
        let outputs: [Val; N] = std::array::from_fn(|_| Val(self.fresh("Split")));
        let widths = self.i64s(&widths.map(|width| width as i64));
        self.node(ONNX, "Split", &[value, &widths], &outputs, vec![int("axis", -1)]);
        outputs
    }

    /// `Reshape` with ONNX's meaning of 0 (the same) and -1 (the rest).
    pub(crate) fn reshape(&mut self, value: &Val, dims: &[i64]) -> Val {
        let dims = self.i64s(dims);
        self.op("Reshape", &[value, &dims], vec![])
    }

    /// `Transpose`.
    pub(crate) fn transpose(&mut self, value: &Val, perm: &[i64]) -> Val {
        self.op("Transpose", &[value], vec![ints("perm", perm)])
    }

    /// `value[.., from..to, ..]` along an axis.
    pub(crate) fn slice(&mut self, value: &Val, from: &Val, to: &Val, axis: i64) -> Val {
        let axis = self.i64s(&[axis]);
        self.op("Slice", &[value, from, to, &axis], vec![])
    }

    /// Inserts axes of size 1.
    pub(crate) fn unsqueeze(&mut self, value: &Val, axes: &[i64]) -> Val {
        let axes = self.i64s(axes);
        self.op("Unsqueeze", &[value, &axes], vec![])
    }

    /// `Cast`.
    pub(crate) fn cast(&mut self, value: &Val, to: DataType) -> Val {
        self.op("Cast", &[value], vec![int("to", i64::from(to as i32))])
    }

    /// A one-dimensional constant, shared with equal ones.
    pub(crate) fn i64s(&mut self, values: &[i64]) -> Val {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(DataType::Int64, vec![values.len() as i64], bytes)
    }

    /// A scalar constant, shared with equal ones.
    pub(crate) fn i64(&mut self, value: i64) -> Val {
        self.constant(DataType::Int64, vec![], value.to_le_bytes().to_vec())
    }

    /// A scalar constant, shared with equal ones.
    pub(crate) fn f32(&mut self, value: f32) -> Val {
        self.constant(DataType::Float, vec![], value.to_le_bytes().to_vec())
    }

    /// A scalar constant, shared with equal ones.
    pub(crate) fn f64(&mut self, value: f64) -> Val {
        self.constant(DataType::Double, vec![], value.to_le_bytes().to_vec())
    }

    /// A one-dimensional constant, shared with equal ones.
    pub(crate) fn f64s(&mut self, values: &[f64]) -> Val {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(DataType::Double, vec![values.len() as i64], bytes)
    }

    fn constant(&mut self, dtype: DataType, dims: Vec<i64>, bytes: Vec<u8>) -> Val {
        let key = (dtype as i32, dims, bytes);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let name = Val(format!("const_{}", self.constants.len()));
        self.constants.push(TensorProto {
            dims: key.1.clone(),
            data_type: key.0,
            name: name.0.clone(),
            raw_data: Some(key.2.clone()),
            ..Default::default()
        });
        self.known.insert(key, name.clone());
        name
    }

    /// What was built as the definition of an operator, which has its constants inside.
    pub(crate) fn finish_function(self, domain: &str, name: &str, attributes: Vec<String>) -> FunctionProto {
        let names = |values: Vec<ValueInfoProto>| values.into_iter().map(|value| value.name).collect();
        let constants = self.constants.into_iter().map(|constant| NodeProto {
            output: vec![constant.name.clone()],
            name: constant.name.clone(),
            op_type: "Constant".to_owned(),
            attribute: vec![AttributeProto {
                name: "value".to_owned(),
                t: Some(constant),
                r#type: attribute_type::TENSOR,
                ..Default::default()
            }],
            ..Default::default()
        });
        FunctionProto {
            name: name.to_owned(),
            domain: domain.to_owned(),
            input: names(self.inputs),
            output: names(self.outputs),
            attribute: attributes,
            node: constants.chain(self.nodes).collect(),
            ..Default::default()
        }
    }

    /// The graph, with these initializers beside its constants.
    pub(crate) fn finish(self, name: &str, mut initializers: Vec<TensorProto>) -> GraphProto {
        let mut initializer = self.constants;
        initializer.append(&mut initializers);
        GraphProto { node: self.nodes, name: name.to_owned(), initializer, input: self.inputs, output: self.outputs }
    }
}
