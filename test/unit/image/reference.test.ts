import { describe, expect, it } from 'vitest';
import { formatReference, isDigest, isImageId, parseReference } from '../../../src/image/reference.ts';

const HEX = 'a'.repeat(64);

describe('parseReference', () => {
  it.each([
    ['busybox', 'docker.io/library/busybox:latest'],
    ['busybox:1.36', 'docker.io/library/busybox:1.36'],
    ['user/app', 'docker.io/user/app:latest'],
    ['docker.io/busybox', 'docker.io/library/busybox:latest'],
    ['index.docker.io/busybox', 'docker.io/library/busybox:latest'],
    ['localhost/app', 'localhost/app:latest'],
    ['localhost:5000/app:v1', 'localhost:5000/app:v1'],
    ['registry.example/a/b/c', 'registry.example/a/b/c:latest'],
    ['[::1]:5000/app', '[::1]:5000/app:latest'],
    ['HOST/app', 'HOST/app:latest'],
    ['a__b/c-d.e/f--g', 'docker.io/a__b/c-d.e/f--g:latest'],
    [`busybox@sha256:${HEX}`, `docker.io/library/busybox@sha256:${HEX}`],
    [`busybox:1@sha256:${HEX}`, `docker.io/library/busybox:1@sha256:${HEX}`],
    [`a:${'t'.repeat(128)}`, `docker.io/library/a:${'t'.repeat(128)}`],
  ])('normalises %s', (text, normal) => {
    expect(formatReference(parseReference(text))).toBe(normal);
  });

  it.each([
    ['', /must name an image/],
    ['Busybox', /"Busybox" must be lowercase/],
    ['busybox:', /"" is no tag/],
    [`busybox:${'t'.repeat(129)}`, /is no tag/],
    ['busybox:-x', /is no tag/],
    ['busybox@sha256:abc', /is no digest/],
    [`busybox@sha256:${'A'.repeat(64)}`, /is no digest/],
    ['busybox@', /is no digest/],
    ['a//b', /empty part/],
    ['/a', /empty part/],
    ['a/', /empty part/],
    ['a/../b', /"\.\." is no part/],
    ['a..b', /is no part/],
    ['a b', /is no part/],
    ['-a.example/b', /is no registry host/],
    ['example.com:port/b', /is no registry host/],
    ['https://example.com/b', /is no registry host/],
    [HEX, /is an image id/],
    [`example.com/${'a/'.repeat(150)}b`, /longer than 255/],
    ['a'.repeat(2000), /at most 1024/],
  ])('refuses %j', (text, message) => {
    expect(() => parseReference(text)).toThrow(message);
  });
});

it('tells ids and digests from names', () => {
  expect(isImageId(HEX)).toBe(true);
  expect(isImageId(`sha256:${HEX}`)).toBe(true);
  expect(isImageId(HEX.slice(1))).toBe(false);
  expect(isDigest(`sha512:${HEX}${HEX}`)).toBe(true);
  expect(isDigest(`md5:${'a'.repeat(32)}`)).toBe(false);
  expect(isDigest(`sha256:${HEX}:x`)).toBe(false);
});
