//! The second factor of an account: codes of an app by time (TOTP, RFC 6238), and recovery codes.
//!
//! Contains: enrolment, confirmation, and the check of a code. Invariant: no database holds a secret or a usable code. The
//! secret and the recovery codes are made from a random id and the shop's signing secret, and recovery codes are stored as
//! hashes, which also says which are left.

use std::sync::Arc;

use qrcode::QrCode;
use qrcode::render::svg;
use sha2::{Digest, Sha256};
use totp_rs::{Builder, Totp};
use uuid::Uuid;

use super::actor::UsersState;
use super::security_notices::{notify_owner, notify_staff_member};
use super::store::{self, Account};
use super::tokens::{TokenCodec, TokenPurpose};
use super::{
    AccessChanged, ConfirmTotp, CredentialChange, DisableTotp, EnrollTotp, RecoveryCodes, TotpEnrolment, UsersError,
};
use crate::messaging::{CommonError, Credential, RequestContext};
use crate::store::Tx;
use crate::types::{Timestamp, UserId, new_uuid};

/// Number of recovery codes.
const RECOVERY_CODES: u8 = 10;
/// Bytes of the secret; RFC 4226 recommends 20.
const SECRET_BYTES: usize = 20;
/// Minimum width and height of the QR code in pixels.
const QR_SIZE: u32 = 220;

/// Builds the generator of an account's codes.
fn totp(tokens: &TokenCodec, id: Uuid, account: &str, issuer: &str) -> Result<Totp, CommonError> {
    let secret = tokens.derive::<SECRET_BYTES>(TokenPurpose::Totp, id, 0);
    // A colon separates the two in the address.
    let plain = |text: &str| text.replace(':', " ");
    let builder = Builder::new().with_secret(secret).with_account_name(plain(account)).with_issuer(Some(plain(issuer)));
    builder.build().map_err(|error| {
        log::error!("users: the second factor cannot be computed: {error}");
        CommonError::Internal
    })
}

/// The recovery codes of an enrolment, such as `3f9a1-c04be`.
fn recovery_codes(tokens: &TokenCodec, id: Uuid) -> Vec<String> {
    let code = |n: u8| {
        let bytes = tokens.derive::<5>(TokenPurpose::RecoveryCode, id, n);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}", &hex[..5], &hex[5..])
    };
    (0..RECOVERY_CODES).map(code).collect()
}

fn hash_of(code: &str) -> String {
    Sha256::digest(code.trim().to_lowercase()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn totp_id(account: &Account) -> Option<Uuid> {
    account.totp_id.as_deref().and_then(|id| id.parse().ok())
}

/// Checks a code of the app and returns its time step, unless that or a later one was used before.
fn check_totp(tokens: &TokenCodec, account: &Account, code: &str, now: Timestamp) -> Result<i64, UsersError> {
    let id = totp_id(account).ok_or(UsersError::SecondFactorOff)?;
    let seconds = u64::try_from(now.micros() / 1_000_000).unwrap_or_default();
    let step = totp(tokens, id, "", "")?.check(code.trim(), seconds).and_then(|step| i64::try_from(step).ok());
    step.filter(|step| account.totp_step.is_none_or(|last| *step > last)).ok_or(UsersError::WrongCode)
}

/// Uses up a code of the app or a recovery code of an account that has a second factor.
///
/// # Errors
/// [`UsersError::WrongCode`].
pub fn use_code(tx: &mut Tx<'_>, tokens: &TokenCodec, account: &mut Account, code: &str) -> Result<(), UsersError> {
    if store::use_recovery_code(tx.conn, account.id, &hash_of(code))? {
        return Ok(());
    }
    account.totp_step = Some(check_totp(tokens, account, code, tx.now)?);
    store::update(tx.conn, account)
}

pub(super) async fn enroll_totp(
    state: Arc<UsersState>,
    ctx: RequestContext,
    request: EnrollTotp,
) -> Result<TotpEnrolment, UsersError> {
    ctx.require_recent_sign_in(state.store.now())?;
    let user_id = request.user_id;
    let (id, email): (Uuid, String) = state
        .store
        .idempotent(&ctx, &request)?
        .run(move |tx| {
            let mut account = store::find_by_id(tx.conn, user_id)?.ok_or(UsersError::UserNotFound)?;
            // A guest has no password that a second factor could add to.
            let email = account.email.clone().ok_or(CommonError::Forbidden)?;
            if account.totp_step.is_some() {
                return Err(UsersError::SecondFactorOn);
            }
            let id = new_uuid();
            account.totp_id = Some(id.to_string());
            store::update(tx.conn, &account)?;
            Ok((id, email.to_string()))
        })
        .await?;
    let totp = totp(&state.tokens, id, &email, &state.shop)?;
    let otpauth_url = totp.to_url().map_err(|error| {
        log::error!("users: the address of a second factor cannot be built: {error}");
        CommonError::Internal
    })?;
    let secret = totp_rs::Secret::from(state.tokens.derive::<SECRET_BYTES>(TokenPurpose::Totp, id, 0)).to_base32();
    let qr_svg = qr_svg(&otpauth_url)?;
    Ok(TotpEnrolment { otpauth_url, secret, qr_svg })
}

fn qr_svg(text: &str) -> Result<String, CommonError> {
    let code = QrCode::new(text).map_err(|error| {
        log::error!("users: a QR code cannot be drawn: {error}");
        CommonError::Internal
    })?;
    Ok(code.render::<svg::Color<'_>>().min_dimensions(QR_SIZE, QR_SIZE).build())
}

pub(super) async fn confirm_totp(
    state: Arc<UsersState>,
    ctx: RequestContext,
    request: ConfirmTotp,
) -> Result<RecoveryCodes, UsersError> {
    ctx.require_recent_sign_in(state.store.now())?;
    let kept = ctx.identity().and_then(|who| match who.credential {
        Credential::Session(session) => Some(session),
        Credential::ApiKey(_) => None,
    });
    let (user_id, job_state) = (request.user_id, Arc::clone(&state));
    let id: Uuid = state
        .store
        .idempotent(&ctx, &request)?
        .run(move |tx| {
            let mut account = store::find_by_id(tx.conn, user_id)?.ok_or(UsersError::UserNotFound)?;
            if account.totp_step.is_some() {
                return Err(UsersError::SecondFactorOn);
            }
            let id = totp_id(&account).ok_or(UsersError::SecondFactorOff)?;
            account.totp_step = Some(check_totp(&job_state.tokens, &account, &request.code, tx.now)?);
            account.updated_at = tx.now;
            store::update(tx.conn, &account)?;
            let hashes: Vec<String> = recovery_codes(&job_state.tokens, id).iter().map(|code| hash_of(code)).collect();
            store::replace_recovery_codes(tx.conn, user_id, &hashes)?;
            store::end_sessions(tx.conn, user_id, kept)?;
            tx.emit(&AccessChanged { user_id, session_id: None })?;
            notify_owner(tx, &account, CredentialChange::SecondFactorOn, false)?;
            Ok(id)
        })
        .await?;
    state.token_cache.invalidate_user(user_id);
    Ok(RecoveryCodes { recovery_codes: recovery_codes(&state.tokens, id) })
}

pub(super) async fn disable_totp(
    state: Arc<UsersState>,
    ctx: RequestContext,
    request: DisableTotp,
) -> Result<(), UsersError> {
    let caller = ctx.identity().map(|who| who.user_id);
    let by_owner = caller == Some(request.user_id);
    if !by_owner {
        ctx.require_recent_sign_in(state.store.now())?;
    }
    let (DisableTotp { user_id, code }, job_state) = (request.clone(), Arc::clone(&state));
    // A code is a secret for as long as it works.
    let without_secrets = DisableTotp { user_id, code: None };
    state
        .store
        .idempotent(&ctx, &without_secrets)?
        .run(move |tx| {
            let mut account = store::find_by_id(tx.conn, user_id)?.ok_or(UsersError::UserNotFound)?;
            if account.totp_step.is_none() {
                return Err(UsersError::SecondFactorOff);
            }
            if by_owner {
                use_code(tx, &job_state.tokens, &mut account, code.as_deref().unwrap_or_default())?;
            }
            switch_off(tx, account, caller.filter(|_| !by_owner))
        })
        .await?;
    state.token_cache.invalidate_user(user_id);
    Ok(())
}

fn switch_off(tx: &mut Tx<'_>, mut account: Account, staff: Option<UserId>) -> Result<(), UsersError> {
    (account.totp_id, account.totp_step) = (None, None);
    account.updated_at = tx.now;
    store::update(tx.conn, &account)?;
    store::replace_recovery_codes(tx.conn, account.id, &[])?;
    notify_owner(tx, &account, CredentialChange::SecondFactorOff, staff.is_some())?;
    match staff {
        Some(staff) => notify_staff_member(tx, staff),
        None => Ok(()),
    }
}
