DROP TABLE recovery_code;
ALTER TABLE api_key DROP COLUMN expires_at;
ALTER TABLE api_key DROP COLUMN scopes;
ALTER TABLE session DROP COLUMN last_used_at;
ALTER TABLE account DROP COLUMN totp_step;
ALTER TABLE account DROP COLUMN totp_id;
ALTER TABLE account DROP COLUMN pending_email;
UPDATE account SET role = 'customer' WHERE role IN ('read_only', 'support', 'manager');
