//! Keys and secrets: callers must show the configured keys, secrets may be in files, and no mistake shows a
//! secret.

use super::*;

#[test]
fn keys_that_are_configured_are_asked_for() {
    let file = format!(
        "[publisher]\nkeys = ['{KEY_HASH}']\n[auth]\ndevice_keys = [{{ alg = 'HS256', secret = '{SECRET}' }}]"
    );
    let config = load(&file, &[], &[]).unwrap();
    assert_eq!(config.publisher_keys.admits(None), Err(Refused::KeyMissing));
    assert_eq!(config.publisher_keys.admits(Some("Bearer secret")), Ok(0));
    assert_eq!(config.publisher_keys.admits(Some("Bearer key")), Err(Refused::KeyUnknown));
    assert_eq!(config.device_keys.grant(None, 0), Err(Refused::TokenMissing));
    let other = "sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683";
    let typed = format!("['{KEY_HASH}', '{other}']");
    let config = load("", &[("ROOMCAST__PUBLISHER__KEYS", &typed)], &[]).unwrap();
    assert_eq!(config.publisher_keys.admits(Some("Bearer key")), Ok(1));
}

#[test]
fn a_secret_may_stand_in_a_file_whose_last_line_end_does_not_count() {
    let claims = serde_json::json!({"exp": 100, "rooms": ["r"]});
    let signer = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &signer).unwrap();
    for end in ["", "\n", "\r\n"] {
        let secret = Scratch::holding(format!("{SECRET}{end}"));
        let file = format!("auth.device_keys = [{{ alg = 'HS256', secret_file = '{}' }}]", secret.path());
        let grant = load(&file, &[], &[]).unwrap().device_keys.grant(Some(&token), 99).unwrap();
        let room = RoomName::parse("r").unwrap();
        assert!(grant.covers(&room) && grant.expires_s() == Some(100), "{end:?}");
    }
    let large = Scratch::holding(vec![b'x'; limits::SECRET_BYTES_MAX + 1]);
    let file = format!("auth.device_keys = [{{ alg = 'HS256', secret_file = '{}' }}]", large.path());
    assert!(file_mistakes(&file)[0].contains("is too large"));
}

#[test]
fn a_secret_that_changed_in_its_file_is_named_by_a_reload() {
    let secret = Scratch::holding(SECRET);
    let text = format!("auth.device_keys = [{{ alg = 'HS256', secret_file = '{}' }}]", secret.path());
    let file = Scratch::holding(text);
    let line = args(&["--config", file.path()]);
    let running = Loaded::load(&line, variables(&[])).unwrap();
    assert!(running.reload(&line, variables(&[])).unwrap().changed.is_empty());
    std::fs::write(&secret.0, SECRET.to_uppercase()).unwrap();
    let reloaded = running.reload(&line, variables(&[])).unwrap();
    assert_eq!(reloaded.changed, ["auth.device_keys (the content of a secret_file)"]);
}

#[test]
fn a_relative_secret_file_counts_from_the_folder_of_the_file_that_names_it() {
    let secret = Scratch::holding(SECRET);
    let name = secret.0.file_name().unwrap().to_str().unwrap();
    let keys = format!("[{{ alg = 'HS256', secret_file = '{name}' }}]");
    // The file of the configuration and the file of the secret are in the scratch folder. The test runs in
    // another folder.
    assert!(load(&format!("auth.device_keys = {keys}"), &[], &[]).is_ok());
    // A variable has no folder, so its path counts from the working directory.
    let mistakes = load("", &[("ROOMCAST__AUTH__DEVICE_KEYS", &keys)], &[]).unwrap_err();
    assert!(told(&mistakes)[0].contains("can't be read"), "{mistakes}");
}

#[test]
fn mistakes_about_secrets_name_the_key_and_never_what_was_typed() {
    let ed = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    for (file, key) in [
        ("publisher.keys = 'canary'".to_owned(), "publisher.keys"),
        ("publisher.keys = ['canary']".to_owned(), "publisher.keys[0]"),
        (format!("publisher.keys = ['{KEY_HASH}', '{KEY_HASH}', '{KEY_HASH}']"), "publisher.keys"),
        ("publisher.key = 'canary'".to_owned(), "publisher.key"),
        ("auth.device_keys = 'canary'".to_owned(), "auth.device_keys"),
        ("auth.device_keys = ['canary']".to_owned(), "auth.device_keys[0]"),
        ("auth.device_keys = [{ alg = 'HS256', secret = 'canary' }]".to_owned(), "auth.device_keys[0]"),
        (
            "auth.device_keys = [{ alg = 'HS256', secret = ['canary'] }]".to_owned(),
            "auth.device_keys[0].secret",
        ),
        ("auth.device_keys = [{ alg = 'HS256', secrt = 'canary' }]".to_owned(), "auth.device_keys[0].secrt"),
        (format!("auth.device_keys = [{{ secret = '{SECRET}' }}]"), "auth.device_keys[0].alg"),
        (format!("auth.device_keys = [{{ alg = 'none', secret = '{SECRET}' }}]"), "auth.device_keys[0].alg"),
        (format!("auth.device_keys = [{{ alg = 'EdDSA', secret = '{SECRET}' }}]"), "auth.device_keys[0]"),
        (format!("auth.device_keys = [{{ alg = 'HS256', public_key = '{ed}' }}]"), "auth.device_keys[0]"),
        ("auth.device_keys = [{ alg = 'EdDSA', public_key = 'canary' }]".to_owned(), "auth.device_keys[0]"),
        (
            "auth.device_keys = [{ alg = 'HS256', secret_file = '/nonexistent' }]".to_owned(),
            "auth.device_keys[0].secret_file",
        ),
        (
            format!(
                "auth.device_keys = [{{ kid = 'a', alg = 'HS256', secret = '{SECRET}' }}, \
                 {{ kid = 'a', alg = 'EdDSA', public_key = '{ed}' }}]"
            ),
            "auth.device_keys[1].kid",
        ),
        (format!("[auth]\ndevice_keys = [{{ alg = 'HS256', secret = '{SECRET} }}]"), "line 2"),
    ] {
        let mistakes = load(&file, &[], &[]).unwrap_err();
        assert_eq!(mistakes.0[0].key, key, "{mistakes}");
        let shown = format!("{mistakes} {mistakes:?}");
        assert!(!shown.contains("canary") && !shown.contains(&KEY_HASH[7..]), "{shown}");
    }
    for unreadable in
        ["canary", "0canary", "canary = ", "'canary", "[canary", "2026-canary", "'\\canary", "\"\\canary\""]
    {
        let file = format!("[publisher]\nkey = 1\nkeys = {unreadable}\n");
        let mistakes = load(&file, &[], &[]).unwrap_err();
        assert!(!format!("{mistakes} {mistakes:?}").contains("canary"), "{mistakes}");
    }
    let typed = [("ROOMCAST__PUBLISHER__KEYS", "canary"), ("ROOMCAST__PUBLISHER__KEY", "canary")];
    assert!(!load("", &typed, &[]).unwrap_err().to_string().contains("canary"));
}

#[test]
fn nine_device_keys_are_too_many() {
    let one = format!("{{ alg = 'HS256', secret = '{SECRET}' }}");
    let keys = |count| format!("auth.device_keys = [{}]", vec![one.as_str(); count].join(", "));
    assert!(load(&keys(limits::DEVICE_KEYS_MAX), &[], &[]).is_ok());
    assert_eq!(load(&keys(limits::DEVICE_KEYS_MAX + 1), &[], &[]).unwrap_err().0.len(), 1);
}
