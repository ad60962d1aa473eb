//! OpenTelemetry's own variables, for the keys that mean the same. The file goes before them.

use figment::value::Value;

/// What their names begin with.
pub(super) const PREFIX: &str = "OTEL_";

/// How the text of a variable becomes the value of a key.
#[derive(Clone, Copy)]
enum Form {
    Text,
    /// `a=1,b=2`, values percent-encoded.
    Pairs,
    /// Milliseconds, where the key has seconds.
    Milliseconds,
}

const SAME: [(&str, &str, Form); 9] = [
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.endpoint", Form::Text),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "telemetry.protocol", Form::Text),
    ("OTEL_EXPORTER_OTLP_HEADERS", "telemetry.headers", Form::Pairs),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "telemetry.timeout", Form::Milliseconds),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "telemetry.ca", Form::Text),
    ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "telemetry.certificate", Form::Text),
    ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "telemetry.key", Form::Text),
    ("OTEL_METRIC_EXPORT_INTERVAL", "telemetry.export_interval", Form::Milliseconds),
    ("OTEL_RESOURCE_ATTRIBUTES", "telemetry.resource", Form::Pairs),
];

const SAMPLER: &str = "OTEL_TRACES_SAMPLER";

/// Name of the variable, path of the key, and value, of each that is set. A value that cannot be right is given as it is, and
/// is reported with its key.
pub(super) fn settings(variables: &[(String, String)]) -> Vec<(&'static str, &'static str, Value)> {
    let get = |name: &str| {
        let found = variables.iter().find(|(found, _)| found == name);
        found.map(|(_, text)| text.trim()).filter(|text| !text.is_empty())
    };
    // The standard has all of it switched off by this one.
    if get("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
        return Vec::new();
    }
    // The service's name is one of its attributes, and goes before what these say of it.
    let service = get("OTEL_SERVICE_NAME").map(|name| {
        let attributes = pairs(get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default());
        let named = Value::from(format!("service.name={name}"));
        ("OTEL_SERVICE_NAME", "telemetry.resource", attributes.into_iter().chain([named]).collect::<Vec<_>>().into())
    });
    let same = SAME.iter().filter_map(|&(name, path, form)| Some((name, path, form.value(get(name)?))));
    let sampler = get(SAMPLER).map(|text| (SAMPLER, "telemetry.traces", share(text, get("OTEL_TRACES_SAMPLER_ARG"))));
    let no_traces = get("OTEL_TRACES_EXPORTER")
        .filter(|text| *text == "none")
        .map(|_| ("OTEL_TRACES_EXPORTER", "telemetry.traces", Value::from(0_u64)));
    same.chain(service).chain(sampler).chain(no_traces).collect()
}

impl Form {
    fn value(self, text: &str) -> Value {
        match self {
            Self::Text => text.into(),
            Self::Pairs => pairs(text).into(),
            Self::Milliseconds => {
                text.parse::<u64>().map_or_else(|_| text.into(), |ms| ms.div_ceil(1000).max(1).into())
            }
        }
    }
}

/// `a=1,b=2`; a comma at the end is none of them.
fn pairs(text: &str) -> Vec<Value> {
    text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(|pair| Value::from(decoded(pair))).collect()
}

/// Requests in a hundred.
fn share(sampler: &str, argument: Option<&str>) -> Value {
    match (sampler.trim_start_matches("parentbased_"), argument) {
        ("always_on", _) => 100_u64.into(),
        ("always_off", _) => 0_u64.into(),
        ("traceidratio", None) => 100_u64.into(),
        ("traceidratio", Some(ratio)) => match ratio.parse::<f64>() {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => ((ratio * 100.0).round() as u64).into(),
            _ => ratio.into(),
        },
        _ => sampler.into(),
    }
}

/// Percent-encoded text as it was.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, more)) = rest.split_first() {
        let hex = more.get(..2).and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            _ => {
                bytes.push(first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Vec<(&'static str, String)> {
        let variables: Vec<_> = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let shown = |value: &Value| serde_json::to_string(value).unwrap();
        settings(&variables).iter().map(|(_, path, value)| (*path, shown(value))).collect()
    }

    #[test]
    fn the_standards_variables_set_our_keys() {
        let found = of(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x,a=b"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "15000"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_SERVICE_NAME", ""),
        ]);
        let expected = [
            ("telemetry.endpoint", r#""http://c:4317""#),
            ("telemetry.headers", r#"["authorization=Bearer x","a=b"]"#),
            ("telemetry.export_interval", "15"),
            ("telemetry.traces", "25"),
        ];
        assert_eq!(found, expected.map(|(path, text)| (path, text.to_owned())));
    }

    #[test]
    fn what_is_wrong_is_left_for_the_keys_to_report() {
        let wrong = of(&[("OTEL_METRIC_EXPORT_INTERVAL", "soon"), ("OTEL_TRACES_SAMPLER", "jaeger")]);
        assert_eq!(
            wrong,
            [("telemetry.export_interval", r#""soon""#.to_owned()), ("telemetry.traces", r#""jaeger""#.to_owned())]
        );
        assert!(of(&[("OTEL_SDK_DISABLED", "true"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1")]).is_empty());
    }
}
