//! What holds, each in a file that is named after it.

mod equals_hugging_face;
mod quantized_graphs_equal_the_oracle;
mod served_checkpoints_equal_hugging_face;
mod the_demo_model_answers;
