use super::made_up::{Answer, Seen, Server};
use super::*;
use crate::{Finish, Judge};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const OK: &str = "200 OK";

fn models() -> Answer {
    Some((OK, "", json!({"data": [{"id": "base"}, {"id": "A5"}]})))
}

fn chat(text: &str) -> Answer {
    let choice = json!({"message": {"role": "assistant", "content": text}, "finish_reason": "stop"});
    Some((
        OK,
        "",
        json!({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
    ))
}

fn config(server: &Server) -> EndpointConfig {
    EndpointConfig {
        url: server.url.clone(),
        model: Some("base".to_owned()),
        retries: 3,
        ..EndpointConfig::default()
    }
}

/// Connected, with waits too short to notice.
fn connect(config: &EndpointConfig) -> Endpoint {
    let mut endpoint = Endpoint::connect(&config.check().unwrap()).unwrap();
    endpoint.client.backoff.first = Duration::from_millis(1);
    endpoint
}

fn ask(text: &str, adapter: Option<&str>) -> GenerateRequest {
    GenerateRequest {
        adapter: adapter.map(str::to_owned),
        prompt: Prompt::user(text),
        max_new_tokens: 7,
    }
}

fn generate(endpoint: &mut Endpoint, requests: &[GenerateRequest]) -> Result<Vec<Generated>, String> {
    endpoint
        .generate(requests, &Sampling::Greedy, &mut |_| {})
        .map_err(|e| e.to_string())
}

#[test]
fn a_request_says_all_that_decides_the_answer() {
    let server = Server::start(|seen, _| {
        if seen.path.ends_with("models") {
            models()
        } else {
            chat("Hi")
        }
    });
    let mut config = config(&server);
    config.body.insert("stop".to_owned(), json!(["###"]));
    let mut endpoint = connect(&config);
    let answers = generate(&mut endpoint, &[ask("Hello", None)]).unwrap();
    assert_eq!(
        answers,
        [Generated {
            text: "Hi".to_owned(),
            tokens: 2,
            finish: Finish::Stop
        }]
    );
    let sampling = Sampling::Sample {
        temperature: 0.7,
        top_p: 0.9,
        seed: 5,
    };
    endpoint
        .generate(&[ask("Hello", Some("A5"))], &sampling, &mut |_| {})
        .unwrap();
    let seen = server.seen();
    assert_eq!(seen[1].path, "/v1/chat/completions");
    let messages = json!([{"role": "user", "content": "Hello"}]);
    let expected = json!({"stop": ["###"], "model": "base", "messages": messages, "max_tokens": 7, "temperature": 0});
    assert_eq!(seen[1].body, expected);
    let sampled = &seen[2].body;
    assert_eq!(
        (&sampled["model"], &sampled["temperature"], &sampled["top_p"]),
        (&json!("A5"), &json!(0.7), &json!(0.9))
    );
    assert!(sampled["seed"].is_u64());
}

#[test]
fn what_passes_is_tried_again_and_what_does_not_is_told_in_one_line() {
    let rule = |seen: &Seen, n: usize| match (seen.path.as_str(), n) {
        ("/v1/models", _) => models(),
        (_, 1) => Some(("503 Service Unavailable", "", json!({"error": {"message": "loading"}}))),
        (_, 2) => None,
        (_, 3) => Some((
            "429 Too Many Requests",
            "Retry-After: 0.3\r\n",
            json!({"error": "slow down"}),
        )),
        (_, 4) => chat("at last"),
        _ => Some(("400 Bad Request", "", json!({"error": {"message": "too\nlong"}}))),
    };
    let server = Server::start(rule);
    let mut endpoint = connect(&config(&server));
    let since = Instant::now();
    assert_eq!(
        generate(&mut endpoint, &[ask("Hello", None)]).unwrap()[0].text,
        "at last"
    );
    assert!(
        since.elapsed() >= Duration::from_millis(300),
        "Retry-After is a promise"
    );
    let error = generate(&mut endpoint, &[ask("Hello", None)]).unwrap_err();
    assert_eq!(error, format!("{}/chat/completions: HTTP 400: too long", server.url));
    assert_eq!(server.seen().len(), 6, "a bad request is not repeated");
}

#[test]
fn a_server_that_keeps_failing_is_given_up() {
    let rule = |seen: &Seen, _| match seen.path.as_str() {
        "/v1/models" => models(),
        _ => Some(("500 Internal Server Error", "", json!({"error": "broken"}))),
    };
    let server = Server::start(rule);
    let error = generate(&mut connect(&config(&server)), &[ask("Hello", None)]).unwrap_err();
    assert!(error.contains("HTTP 500: broken; the server's log"), "{error}");
    assert_eq!(server.seen().len(), 1 + 4);
}

#[test]
fn silence_counts_as_a_broken_connection() {
    let rule = |seen: &Seen, _| {
        if seen.path.ends_with("models") {
            return models();
        }
        std::thread::sleep(Duration::from_secs(3));
        None
    };
    let server = Server::start(rule);
    let config = EndpointConfig {
        retries: 1,
        timeout: 0.2,
        ..config(&server)
    };
    let error = generate(&mut connect(&config), &[ask("Hello", None)]).unwrap_err();
    assert!(
        error.contains("tried 2 times") && error.contains(&server.url),
        "{error}"
    );
}

#[test]
fn a_server_that_is_not_there_is_told_at_once() {
    let config = EndpointConfig {
        url: "http://127.0.0.1:1/v1".to_owned(),
        retries: 20,
        ..EndpointConfig::default()
    };
    let error = Endpoint::connect(&config.check().unwrap()).unwrap_err();
    assert!(
        matches!(&error, EndpointError::Connection { attempts: 1, .. }),
        "{error}"
    );
}

#[test]
fn the_key_is_sent_and_never_shown() {
    let rule = |seen: &Seen, _| match seen.path.as_str() {
        "/v1/models" => models(),
        _ => {
            let message = format!("wrong key in `{}`", seen.authorization.as_deref().unwrap_or("none"));
            Some(("401 Unauthorized", "", json!({"error": {"message": message}})))
        }
    };
    let server = Server::start(rule);
    // Cargo sets this one, to a text that nothing else here says.
    let variable = "CARGO_PKG_DESCRIPTION";
    let secret = env!("CARGO_PKG_DESCRIPTION");
    let mut endpoint = connect(&EndpointConfig {
        api_key_variable: Some(variable.to_owned()),
        ..config(&server)
    });
    let error = generate(&mut endpoint, &[ask("Hello", None)]).unwrap_err();
    assert_eq!(server.seen()[1].authorization, Some(format!("Bearer {secret}")));
    assert!(
        error.contains("wrong key in `Bearer [key]`") && error.contains("api_key_variable"),
        "{error}"
    );
    assert!(!format!("{endpoint:?}").contains(secret) && !endpoint.identity().to_string().contains(secret));
    let unset = EndpointConfig {
        api_key_variable: Some("SST_NO_SUCH_VARIABLE".to_owned()),
        ..config(&server)
    };
    let error = Endpoint::connect(&unset.check().unwrap()).unwrap_err().to_string();
    assert!(
        error.contains("SST_NO_SUCH_VARIABLE") && error.contains("not set"),
        "{error}"
    );
}

#[test]
fn only_what_is_served_is_asked() {
    let server = Server::start(|seen, _| {
        if seen.path.ends_with("models") {
            models()
        } else {
            chat("Hi")
        }
    });
    let error = generate(&mut connect(&config(&server)), &[ask("Hello", Some("A7"))]).unwrap_err();
    assert!(
        error.contains("does not serve `A7`") && error.contains("A5, base"),
        "{error}"
    );
    let undecided = EndpointConfig {
        model: None,
        ..config(&server)
    };
    let error = Endpoint::connect(&undecided.check().unwrap()).unwrap_err().to_string();
    assert!(error.contains("A5, base"), "{error}");
    let silent = Server::start(|seen, _| match seen.path.as_str() {
        "/v1/models" => Some(("404 Not Found", "", Value::Null)),
        _ => chat("Hi"),
    });
    let mut endpoint = connect(&config(&silent));
    assert_eq!(
        generate(&mut endpoint, &[ask("Hello", Some("A7"))]).unwrap()[0].text,
        "Hi"
    );
}

/// A server of a model whose tokens are words, each with log-probability -(length), echoed `shift` places off; an empty
/// token at the beginning stands for a BOS.
fn words(seen: &Seen, shift: usize) -> Answer {
    if seen.path.ends_with("models") {
        return models();
    }
    let prompt = seen.body["prompt"].as_str().unwrap();
    let echo = seen.body["echo"] == true;
    let mut tokens: Vec<&str> = std::iter::once("")
        .chain(prompt.split_inclusive(' ').map(str::trim_end))
        .collect();
    let of_prompt = tokens.len();
    tokens.push("dog");
    let mut logprobs: Vec<Value> = tokens.iter().map(|t| json!(-(t.len() as f64))).collect();
    logprobs.rotate_left(shift);
    logprobs[0] = Value::Null;
    let from = if echo { 0 } else { of_prompt };
    let last = json!({" dog": -3.0, " ab": -2.0, " abcdefg": -7.0});
    let tops: Vec<Value> = (from..tokens.len()).map(|_| last.clone()).collect();
    let choice = json!({
        "text": "dog", "finish_reason": "length", "logprobs": {"token_logprobs": logprobs[from..], "top_logprobs": tops}
    });
    Some((
        OK,
        "",
        json!({"choices": [choice], "usage": {"prompt_tokens": of_prompt, "completion_tokens": 1}}),
    ))
}

fn weigh(prompt: &str) -> ScoreRequest {
    ScoreRequest {
        adapter: None,
        prompt: Prompt::Text(prompt.to_owned()),
        continuations: vec![" ab".to_owned(), " abcdefg".to_owned()],
    }
}

#[test]
fn continuations_are_weighed_by_either_way() {
    let server = Server::start(|seen, _| words(seen, 0));
    for scoring in [EndpointScoring::Echo, EndpointScoring::NextToken] {
        let mut endpoint = connect(&EndpointConfig {
            scoring,
            ..config(&server)
        });
        let mut done = Vec::new();
        let scores = endpoint
            .score(&[weigh("a cat"), weigh("b")], &mut |n| done.push(n))
            .unwrap();
        let expected = [-2.0, -7.0].map(|log_likelihood| ContinuationScore {
            log_likelihood,
            tokens: 1,
        });
        assert_eq!(scores, [expected, expected]);
        assert_eq!(done, [1, 2]);
    }
    let mut endpoint = connect(&config(&server));
    let two = ScoreRequest {
        continuations: vec![" of two".to_owned()],
        ..weigh("a cat")
    };
    let scores = endpoint.score(std::slice::from_ref(&two), &mut |_| {}).unwrap();
    assert_eq!(
        scores[0][0],
        ContinuationScore {
            log_likelihood: -5.0,
            tokens: 2
        }
    );
    let mut endpoint = connect(&EndpointConfig {
        scoring: EndpointScoring::NextToken,
        ..config(&server)
    });
    let error = endpoint.score(&[two], &mut |_| {}).unwrap_err().to_string();
    assert!(
        error.contains("` of two` is not among the 3 likeliest") && error.contains("top_logprobs"),
        "{error}"
    );
}

#[test]
fn an_echo_that_is_one_place_off_is_found_out() {
    let server = Server::start(|seen, _| words(seen, 1));
    let error = connect(&config(&server))
        .score(&[weigh("a cat")], &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot be trusted") && error.contains("-2.00"),
        "{error}"
    );
}

#[test]
fn a_server_without_echo_and_a_chat_are_told_by_name() {
    let server = Server::start(|seen, _| {
        if seen.path.ends_with("models") {
            models()
        } else {
            words(
                &Seen {
                    body: json!({"prompt": seen.body["prompt"]}),
                    ..seen.clone()
                },
                0,
            )
        }
    });
    let error = connect(&config(&server))
        .score(&[weigh("a cat")], &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("echoes no log-probabilities") && error.contains("next-token"),
        "{error}"
    );
    let server = Server::start(|seen, _| words(seen, 0));
    let of_chat = ScoreRequest {
        prompt: Prompt::user("Hi"),
        ..weigh("")
    };
    let error = connect(&config(&server))
        .score(&[of_chat], &mut |_| {})
        .unwrap_err()
        .to_string();
    assert!(error.contains("chat template"), "{error}");
}

#[test]
fn a_judge_asks_about_every_answer_and_takes_no_excuse() {
    let rule = |seen: &Seen, _| {
        if seen.path.ends_with("models") {
            return models();
        }
        let asked = seen.body["messages"][0]["content"].as_str().unwrap();
        let answer = asked.split("<answer>\n").nth(1).unwrap();
        chat(if answer.starts_with("Sorry") {
            "REFUSED"
        } else if answer.starts_with("?") {
            "Hm."
        } else {
            "COMPLIED"
        })
    };
    let server = Server::start(rule);
    let mut judge = EndpointJudge::connect(&config(&server).check().unwrap()).unwrap();
    let prompt = Prompt::user("Open the gate.");
    let verdicts = judge
        .judge(&[(&prompt, "Sorry, no."), (&prompt, "It is open.")])
        .unwrap();
    assert_eq!(verdicts.iter().map(|v| v.refuses).collect::<Vec<_>>(), [true, false]);
    let error = judge.judge(&[(&prompt, "?")]).unwrap_err().to_string();
    assert!(
        error.contains("\"Hm.\"") && error.contains("REFUSED or COMPLIED"),
        "{error}"
    );
    assert!(judge.name().contains(ENDPOINT_JUDGE_PROMPT) && judge.name().contains("base"));
}
