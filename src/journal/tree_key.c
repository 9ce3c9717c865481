/* The signing key: see tree_key.h. */
#include <config.h>

#include "journal/tree_key.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/text.h"

struct tree_key {
	EVP_PKEY *pkey;
	struct verify_key public_key;
};

static struct tree_key *key_of(EVP_PKEY *pkey, struct span name)
{
	struct tree_key *key = mem_xalloc(sizeof(*key));
	uint8_t public_key[VERIFY_KEY_BYTES];
	size_t n = sizeof(public_key);
	must(EVP_PKEY_get_raw_public_key(pkey, public_key, &n) == 1);
	must(n == sizeof(public_key));
	key->pkey = pkey;
	must(verify_key_set(name, public_key, &key->public_key, NULL) == ERR_OK);
	return key;
}

struct tree_key *tree_key_new(struct span name)
{
	EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	must(pkey);
	return key_of(pkey, name);
}

void tree_key_free(struct tree_key *key)
{
	if (!key)
		return;
	EVP_PKEY_free(key->pkey);
	mem_free(key);
}

const struct verify_key *tree_key_public(const struct tree_key *key)
{
	return &key->public_key;
}

/* Instead of asking on the terminal. */
static int no_password(char *text, int size, int writes, void *arg)
{
	(void)text;
	(void)size;
	(void)writes;
	(void)arg;
	return -1;
}

enum err_code tree_key_load(struct span pem, struct span name, struct tree_key **ret, struct err *err)
{
	BIO *bio = BIO_new_mem_buf(pem.p, pem.n < LIMIT_SECRET_FILE_BYTES ? (int)pem.n : 0);
	must(bio);
	EVP_PKEY *pkey = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
	BIO_free(bio);
	if (!pkey)
		return err_set(err, ERR_INVALID, "the signing key is no private key in PEM without a password: make "
			       "one with: openssl genpkey -algorithm ed25519");
	if (EVP_PKEY_get_base_id(pkey) != EVP_PKEY_ED25519) {
		EVP_PKEY_free(pkey);
		return err_set(err, ERR_INVALID, "the signing key is not of Ed25519: make one with: openssl genpkey "
			       "-algorithm ed25519");
	}
	*ret = key_of(pkey, name);
	return ERR_OK;
}

/* ---- a key that is kept ------------------------------------------------------------------------ */

static enum err_code sync_folder_of(const char *path, struct err *err)
{
	char *folder = mem_xstrdup(path), *slash = strrchr(folder, '/');
	must(slash);
	*slash = '\0';
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	enum err_code code = ERR_OK;
	if (fd < 0 || fsync(fd) < 0)
		code = err_set_errno(err, ERR_IO, errno, "cannot sync %s", folder);
	if (fd >= 0)
		close(fd);
	mem_free(folder);
	return code;
}

static enum err_code write_key(const struct tree_key *key, const char *path, struct err *err)
{
	char *made = mem_xprintf("%s.new", path), *pem;
	BIO *bio = BIO_new(BIO_s_mem());
	must(bio);
	must(PEM_write_bio_PrivateKey(bio, key->pkey, NULL, NULL, 0, NULL, NULL) == 1);
	long n = BIO_get_mem_data(bio, &pem);
	enum err_code code = ERR_OK;
	unlink(made); /* of a start that was cut short */
	int fd = open(made, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, pem, (size_t)n) != n || fsync(fd) < 0 || rename(made, path) < 0)
		code = err_set_errno(err, ERR_IO, errno, "cannot write %s", path);
	if (fd >= 0)
		close(fd);
	BIO_free(bio); /* which clears what was in it */
	mem_free(made);
	return code ? code : sync_folder_of(path, err);
}

enum err_code tree_key_keep(const char *path, struct span name, struct tree_key **ret, struct err *err)
{
	uint8_t text[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno != ENOENT)
		return err_set_errno(err, ERR_IO, errno, "cannot open the signing key %s", path);
	if (fd < 0) {
		struct tree_key *key = tree_key_new(name);
		enum err_code code = write_key(key, path, err);
		if (code) {
			tree_key_free(key);
			return code;
		}
		log_info("made a signing key", LOG_STR("path", path));
		*ret = key;
		return ERR_OK;
	}
	ssize_t n = read(fd, text, sizeof(text));
	int e = errno;
	close(fd);
	if (n < 0)
		return err_set_errno(err, ERR_IO, e, "cannot read the signing key %s", path);
	enum err_code code = tree_key_load(span_of(text, (size_t)n), name, ret, err);
	OPENSSL_cleanse(text, sizeof(text));
	return code ? err_wrap(err, "%s", path) : ERR_OK;
}

/* ---- signing ----------------------------------------------------------------------------------- */

enum err_code tree_key_checkpoint(const struct tree_key *key, uint64_t size, const struct tree_hash *root,
				  struct buf *out)
{
	uint8_t signature[sizeof(key->public_key.id) + VERIFY_SIGNATURE_BYTES];
	size_t start = out->n, n = VERIFY_SIGNATURE_BYTES;
	enum err_code code = buf_printf(out, "%s\n%llu\n", key->public_key.name, (unsigned long long)size);
	if (!code)
		code = base64_encode(out, span_of(root->bytes, sizeof(root->bytes)), true);
	if (!code)
		code = buf_append_byte(out, '\n');
	if (code)
		return code;
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	must(context);
	must(EVP_DigestSignInit(context, NULL, NULL, NULL, key->pkey) == 1);
	must(EVP_DigestSign(context, signature + sizeof(key->public_key.id), &n, out->p + start, out->n - start) == 1);
	must(n == VERIFY_SIGNATURE_BYTES);
	EVP_MD_CTX_free(context);
	memcpy(signature, key->public_key.id, sizeof(key->public_key.id));
	code = buf_printf(out, "\n\xe2\x80\x94 %s ", key->public_key.name);
	if (!code)
		code = base64_encode(out, span_of(signature, sizeof(signature)), true);
	return code ? code : buf_append_byte(out, '\n');
}
