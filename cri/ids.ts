import { invalid } from '../src/errors.ts';

/** An id of a request; any text that no id has is answered like an unknown one, but not empty or a path. */
export function requireId(id: string, field: string): string {
  if (id === '') throw invalid(field, 'is required');
  if (!/^[\w.-]{1,128}$/.test(id)) throw invalid(field, 'is no id: 64 hexadecimal digits');
  return id;
}
